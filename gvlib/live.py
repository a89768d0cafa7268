"""A page's own training step, compiled for the reader's browser.

An `Experiment` holds functional torch: `train`, `predict` and whatever is measured,
each from tensors to a dict of tensors. `build()` traces them, writes them as C and
compiles that to a few kilobytes of WebAssembly, whose numbers are torch's. Only
building needs a compiler (`pip install ziglang`); what it made is committed and loaded
by name.

    python -m gvlib.live chapters/memorization/random-labels.md    # build
    python -m gvlib.live --check chapters/*/*.md                   # are they in step?
"""

import argparse
import ast
import functools
import hashlib
import inspect
import json
import linecache
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._fingerprint import _globals_read

__all__ = ["Experiment", "Program", "experiments", "load"]

STATIC = Path(__file__).parent / "static"
# Everything that decides the bytes: no debug names, no fused multiply-add (WebAssembly
# has none), SIMD of 128 bits, which every browser has had since 2023.
FLAGS = [
    "-target",
    "wasm32-freestanding",
    "-mcpu=generic+simd128+bulk_memory+nontrapping_fptoint+sign_ext+mutable_globals",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-builtin-memcpy",
    "-Wno-pass-failed",
    "-Wl,--no-entry",
    "-Wl,--gc-sections",
    "-Wl,-z,stack-size=65536",
    "-s",
]
HOW = "python -m gvlib.live <page>, with ziglang installed"


@dataclass(frozen=True)
class Program:
    """A compiled experiment: the module's bytes, and the spec of how to use it."""

    name: str
    wasm: bytes
    spec: dict
    source: str = ""  # the C it was compiled from; empty when loaded

    def files(self) -> dict[str, bytes]:
        """What is committed: file name -> content."""
        text = json.dumps(self.spec, indent=1) + "\n"
        return {
            f"{self.name}.live.wasm": self.wasm,
            f"{self.name}.live.json": text.encode(),
        }

    def save(self, folder: Path | None = None) -> list[Path]:
        """Write the files, into gvlib's static ones if not told else; gives paths."""
        paths = [(folder or STATIC) / name for name in self.files()]
        for path, content in zip(paths, self.files().values(), strict=True):
            path.write_bytes(content)
        return paths


def load(name: str, folder: Path | None = None) -> Program:
    """The compiled experiment that is committed under this name.

    Raises FileNotFoundError, and says how to build it, where there is none.
    """
    folder = folder or STATIC
    try:
        wasm = (folder / f"{name}.live.wasm").read_bytes()
        spec = json.loads((folder / f"{name}.live.json").read_text("utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no compiled experiment {name!r} ({error.filename}): build it with {HOW}"
        ) from None
    return Program(name, wasm, spec)


class Experiment:
    """Functions of tensors, with every argument's shape, to be compiled as one module.

    Arguments are found by name. A shape is words: sizes, as numbers or names, and at
    the end `int` or `bool` for what isn't float32; "" is a single number. A dict of
    shapes is a dict argument. Every function returns a dict; an output named like an
    argument replaces it, so a step returns its new state under the old names.

        def loss(params, x, y):
            return F.cross_entropy(x @ params["w"] + params["b"], y)

        def train(params, x, y, lr):
            grads, value = torch.func.grad_and_value(loss)(params, x, y)
            new = {k: params[k] - lr * grads[k] for k in params}
            return {"params": new, "loss": value}

        lab = Experiment("softmax", [train], params={"w": "2 k", "b": "k"},
                         x="n 2", y="n int", lr="")

    Raises TypeError or ValueError for arguments without a shape, shapes without an
    argument and names that aren't plain.
    """

    def __init__(self, name: str, functions: Sequence[Callable], /, **shapes: Any):
        """`name` names the compiled files; `shapes` gives every argument's."""
        from ._live_trace import Declared

        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise ValueError(
                f"name is {name!r}: expected words of a-z, 0-9 joined by -"
            )
        self.name = name
        self.functions = {fn.__name__: _plain(fn) for fn in functions}
        if len(self.functions) < len(functions) or not functions:
            raise ValueError("expected one or more functions, each with its own name")
        self._arguments = {
            n: list(inspect.signature(f).parameters) for n, f in self.functions.items()
        }
        self._check_names(shapes)
        self.trees = {n: _tree(n, shape) for n, shape in shapes.items()}
        flat = {k: v for n in shapes for k, v in flatten({n: shapes[n]}).items()}
        self.tensors = {n: Declared.parse(n, text) for n, text in flat.items()}
        c_names = {re.sub(r"\W", "_", n) for n in self.tensors}
        if len(c_names) < len(self.tensors):
            raise ValueError("two tensors have names that differ by '.' and '_' only")

    def _check_names(self, shapes: Mapping[str, Any]) -> None:
        wanted = {a for names in self._arguments.values() for a in names}
        if missing := sorted(wanted - set(shapes)):
            raise TypeError(f"{self.name}: no shape is given for {', '.join(missing)}")
        if unused := sorted(set(shapes) - wanted):
            raise TypeError(f"{self.name}: no function takes {', '.join(unused)}")

    @functools.cached_property
    def code(self) -> str:
        """A hash of what the functions say, comments and docstrings apart."""
        said = [_said(fn, set()) for fn in self.functions.values()]
        shapes = [f"{n}: {d.shape} {d.kind}" for n, d in self.tensors.items()]
        return hashlib.sha256("\n".join([*said, *shapes]).encode()).hexdigest()[:16]

    def call(self, function: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one function in torch itself, on flat names; gives flat outputs."""
        arguments = [_fill(self.trees[n], tensors) for n in self._arguments[function]]
        return flatten(self.functions[function](*arguments))

    def source(self) -> tuple[str, dict]:
        """The C text of the module, and its spec.

        Raises Unsupported, with the name and the line of what can't be compiled.
        """
        from ._live_c import program
        from ._live_trace import trace

        traced = [
            trace(fn, {n: self.trees[n] for n in self._arguments[name]}, self.tensors)
            for name, fn in self.functions.items()
        ]
        text, spec = program(traced, self.tensors)
        return text, {"name": self.name, "code": self.code, **spec}

    def build(self) -> Program:
        """Trace and compile. The same functions give the same bytes."""
        text, spec = self.source()
        exports = ["get_sizes", "get_tensors", "setup"]
        names = [*exports, *(f"f_{name}" for name in self.functions)]
        return Program(self.name, compile_c(text, names), spec, text)

    def load(self) -> tuple[Program, bool]:
        """The committed program, and whether it is compiled from these functions."""
        program = load(self.name)
        return program, program.spec["code"] == self.code


def compile_c(text: str, exports: Iterable[str]) -> bytes:
    """C to WebAssembly with ziglang's clang.

    Raises ModuleNotFoundError where ziglang is missing, RuntimeError with the
    compiler's words where it refuses.
    """
    try:
        import ziglang  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "compiling needs ziglang: pip install ziglang. Reading and building the "
            "book do not"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "live.c").write_text(text, "utf-8")
        names = [f"-Wl,--export={name}" for name in exports]
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *names]
        done = subprocess.run(
            [*command, "live.c", "-o", "live.wasm"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(
                f"the compiler refused the C text:\n{done.stderr[:3000]}"
            )
        return (Path(folder) / "live.wasm").read_bytes()


# ---- trees of tensors ----------------------------------------------------------------


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of dicts as one dict, its keys joined by dots.

    >>> flatten({"params": {"w": 1, "b": 2}, "x": 3})
    {'params.w': 1, 'params.b': 2, 'x': 3}
    """
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            inner = flatten(value)
            flat |= {f"{key}.{k}": v for k, v in inner.items()}
        else:
            flat[key] = value
    return flat


def _tree(name: str, shape: Any) -> Any:
    """The tree of names that belongs to a tree of shapes."""
    if isinstance(shape, Mapping):
        return {k: _tree(f"{name}.{k}", v) for k, v in shape.items()}
    return name


def _fill(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, Mapping):
        return {k: _fill(v, tensors) for k, v in tree.items()}
    return tensors[tree]


# ---- what the functions say ----------------------------------------------------------


def _plain(fn: Callable) -> Callable:
    if not inspect.isfunction(fn) or not fn.__name__.isidentifier():
        raise TypeError(f"{fn!r}: expected a function made with def")
    kinds = {p.kind for p in inspect.signature(fn).parameters.values()}
    if kinds - {inspect.Parameter.POSITIONAL_OR_KEYWORD}:
        raise TypeError(f"{fn.__name__}: expected plain arguments only")
    return fn


def _said(fn: Callable, seen: set) -> str:
    """A function's text without comments, and that of what it uses of its module."""
    if fn in seen:
        return ""
    seen.add(fn)
    text = textwrap.dedent(inspect.getsource(fn))
    try:
        parsed = ast.parse(text)
    except SyntaxError:  # the line of a lambda, which may be a part of something
        return text
    for node in ast.walk(parsed):
        first = getattr(node, "body", None)
        if isinstance(node, ast.FunctionDef) and _is_text(first[0]):
            node.body = first[1:] or [ast.Pass()]
    parts = [ast.unparse(parsed)]
    for name in _globals_read(fn.__code__):
        used = fn.__globals__.get(name)
        if inspect.isfunction(used) and used.__module__ == fn.__module__:
            parts.append(_said(used, seen))
        elif isinstance(used, int | float | str | tuple):
            parts.append(f"{name} = {used!r}")
    return "\n".join(parts)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


# ---- pages ---------------------------------------------------------------------------

CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TAGS = re.compile(r"^:tags: *\[(.*?)\]", re.MULTILINE)


def _live_cells(page: Path) -> list[tuple[int, str]]:
    """(number, code) of the cells tagged `live`; options become empty lines."""
    found = []
    for k, cell in enumerate(CELL.finditer(page.read_text("utf-8"))):
        tags = TAGS.search(cell[1])
        if tags and "live" in re.split(r"[,\s]+", tags[1]):
            blank = lambda m: "\n" * m[0].count("\n")  # noqa: E731
            found.append((k + 1, re.sub(r"\A(:[^\n]*\n)+", blank, cell[1])))
    return found


def has_live_cells(page: Path) -> bool:
    """Whether a page has cells tagged `live`."""
    return bool(_live_cells(page))


def experiments(page: Path) -> dict[str, Any]:
    """Run a page's cells tagged `live`, and only those; gives their variables.

    They stand on their own: torch, F (torch.nn.functional) and gv are imported, all
    else they define or import themselves. What a cell ends with is kept as `_1`, ...
    """
    import gvlib

    space = {"torch": torch, "F": torch.nn.functional, "gv": gvlib, "__name__": "live"}
    for number, code in _live_cells(page):
        file = f"{page} (cell {number})"
        # inspect.getsource finds the text of functions here.
        linecache.cache[file] = (len(code), None, code.splitlines(True), file)
        tree = ast.parse(code, file)
        if isinstance(tree.body[-1], ast.Expr):
            name = ast.Name(f"_{number}", ast.Store())
            tree.body[-1] = ast.Assign([name], tree.body[-1].value)
        exec(compile(ast.fix_missing_locations(tree), file, "exec"), space)
    return space


def _found(page: Path) -> list[Experiment]:
    values = experiments(page).values()
    return list({e.name: e for e in values if isinstance(e, Experiment)}.values())


def _in_step(program: Program) -> bool:
    return all(
        (STATIC / name).is_file() and (STATIC / name).read_bytes() == content
        for name, content in program.files().items()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the experiments of pages, or check that they are in step."""
    parser = argparse.ArgumentParser(
        prog="python -m gvlib.live", description=main.__doc__
    )
    parser.add_argument(
        "pages", nargs="+", type=Path, help="pages (.md) with live cells"
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(arguments)
    stale = 0
    for page in options.pages:
        for experiment in _found(page):
            program = experiment.build()
            same = _in_step(program)
            stale += options.check and not same
            state = "in step" if same else "OUT OF STEP" if options.check else "built"
            print(f"{page}: {experiment.name}: {state}, {len(program.wasm):,} bytes")
            if not options.check:
                program.save()
    return 1 if stale else 0


if __name__ == "__main__":
    # The module under its own name: pages make the Experiments of that one.
    from gvlib import live

    sys.exit(live.main())
