"""What decides a function's results, as a hash.

Its compiled code, its defaults and enclosed values, and, likewise, all that it reads of
its own module. Unlike the text of its source this is what really runs: a file that was
edited but not loaded again doesn't change it, a comment neither, an edited helper does.
"""

import dataclasses
import dis
import functools
import hashlib
import io
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ._tables import digest, dump, short

__all__ = ["code_hash", "gvlib_hash"]

# What a job can't compute with: a change there leaves results as they are.
# (What is drawn, and what is compiled for the browser.)
_NO_PART_OF_A_RESULT = {
    "__init__",
    "_display",
    "_live_c",
    "_live_forms",
    "_live_ops",
    "_live_trace",
    "_packed",
    "_relief",
    "_still",
    "_view",
    "evidence",
    "live",
    "playground",
    "plot",
    "surface3d",
    "widgets",
}


def _globals_read(code: types.CodeType) -> list[str]:
    """The global names that a code object or one inside it reads."""
    names = {
        step.argval
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return sorted(names.union(*map(_globals_read, inner)))


def _code(code: types.CodeType) -> list:
    """A compiled function without its place in the file."""
    constants = [
        _code(c) if isinstance(c, types.CodeType) else _identity(c, "", set())
        for c in code.co_consts
    ]
    arguments = [code.co_argcount, code.co_kwonlyargcount, *code.co_varnames]
    return [code.co_code.hex(), list(code.co_names), arguments, constants]


def _function(fn: types.FunctionType, home: str, seen: set[int]) -> list:
    """Code, defaults, enclosed values, and what it reads of its own module."""
    name = f"{fn.__module__}.{fn.__qualname__}"
    if id(fn) in seen:
        return ["function", name]
    wrapped = getattr(fn, "__wrapped__", None)
    if fn.__globals__.get("__name__", "") != home:
        inner = [] if wrapped is None else [_identity(wrapped, home, seen)]
        return ["function", fn.__code__.co_qualname if inner else name, *inner]
    seen.add(id(fn))
    follow = functools.partial(_identity, home=home, seen=seen)
    reads = [n for n in _globals_read(fn.__code__) if n in fn.__globals__]
    cells = [wrapped] if wrapped else [c.cell_contents for c in fn.__closure__ or ()]
    return [
        "function",
        _code(fn.__code__),
        [follow(value) for value in (fn.__defaults__, fn.__kwdefaults__, *cells)],
        [[n, follow(fn.__globals__[n])] for n in reads],
    ]


def _class(cls: type, home: str, seen: set[int]) -> list:
    """A class of the function's own module by what it defines; others by name."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    if cls.__module__ != home or id(cls) in seen:
        return ["class", name]
    seen.add(id(cls))
    members = {
        n: getattr(v, "__func__", getattr(v, "fget", v)) for n, v in vars(cls).items()
    }
    kept = {
        n: v
        for n, v in members.items()
        if isinstance(v, types.FunctionType)
        or (isinstance(v, int | float | str) and not n.startswith("__"))
    }
    own = [[n, _identity(v, home, seen)] for n, v in sorted(kept.items())]
    return ["class", name, [_class(b, home, seen) for b in cls.__bases__], own]


def _array(values: np.ndarray) -> list:
    """An array by dtype, shape and the SHA-256 of its bytes."""
    if values.dtype == object:
        return [list(values.shape), *(_identity(v, "", set()) for v in values.flat)]
    data = np.ascontiguousarray(values).tobytes()
    return [str(values.dtype), list(values.shape), hashlib.sha256(data).hexdigest()]


def _tensor(value: Tensor) -> list:
    """A tensor likewise; by its bytes, since numpy has no bfloat16."""
    value = value.detach().cpu().contiguous()
    raw = value.reshape(-1).view(torch.uint8).numpy()
    return [str(value.dtype), list(value.shape), *_array(raw)]


def _callable(value: Any, home: str, seen: set[int]) -> list | None:
    """A function, method, class or module; None for anything else."""
    follow = functools.partial(_identity, home=home, seen=seen)
    if isinstance(value, types.FunctionType):
        return _function(value, home, seen)
    if isinstance(value, type):
        return _class(value, home, seen)
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    if isinstance(value, types.MethodType):
        return ["method", follow(value.__func__), follow(value.__self__)]
    if isinstance(value, functools.partial):
        return [
            "partial",
            follow(value.func),
            follow(value.args),
            follow(value.keywords),
        ]
    if hasattr(value, "__qualname__"):  # built in
        return ["name", f"{value.__module__}.{value.__qualname__}"]
    return None


def _container(value: Any, home: str, seen: set[int]) -> list | None:
    """Something that holds values, an array or a frame among them; None for others."""
    follow = functools.partial(_identity, home=home, seen=seen)
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(follow, value)]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(dump(follow(v)) for v in value)]
    if isinstance(value, Mapping):
        return ["dict", *([follow(k), follow(v)] for k, v in value.items())]
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, pd.DataFrame):
        return ["frame", *([name, follow(value[name])] for name in value.columns)]
    if isinstance(value, pd.Series):
        return [_array(value.index.to_numpy()), _array(value.to_numpy())]
    return None


def _identity(value: Any, home: str, seen: set[int]) -> Any:
    """What decides what `value` does or is, as JSON; the same in every process.

    Raises TypeError where that can't be told, as for a random generator.
    """
    if hasattr(value, "cache_info") and hasattr(value, "__wrapped__"):
        value = value.__wrapped__  # functools.lru_cache
    known = _callable(value, home, seen) or _container(value, home, seen)
    if known:
        return known
    cls = _class(type(value), home, seen)
    if isinstance(value, nn.Module):
        return [repr(value), cls, _identity(value.state_dict(), home, seen)]
    if dataclasses.is_dataclass(value) or type(value).__module__ == home:
        return [cls, _identity(vars(value), home, seen)]
    hidden = isinstance(value, io.IOBase | Iterator) or " at 0x" in repr(value)
    if hidden:
        raise TypeError(f"{short(value)} of type {type(value).__name__}")
    return [type(value).__name__, repr(value)]


def code_hash(fn: types.FunctionType) -> str:
    """SHA-256 of what `fn` computes, as far as its own module decides it."""
    try:
        return digest(_identity(fn, fn.__globals__.get("__name__", ""), set()))
    except TypeError as error:
        raise TypeError(
            f"{fn.__qualname__} uses {error}, whose state can't be hashed, so a kept "
            "result couldn't be told from a stale one; make it inside the function, "
            "from values in the setting"
        ) from None


@functools.cache
def gvlib_hash() -> str:
    """The version of gvlib and the SHA-256 of the modules that jobs compute with."""
    here = Path(__file__).parent
    files = sorted(p for p in here.glob("*.py") if p.stem not in _NO_PART_OF_A_RESULT)
    text = "".join(f"{p.stem}\n{p.read_text(encoding='utf-8')}\n" for p in files)
    version = sys.modules[__package__].__version__
    return f"{version}+{hashlib.sha256(text.encode()).hexdigest()[:16]}"
