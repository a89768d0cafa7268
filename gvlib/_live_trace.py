"""A function of the page as a graph of torch's basic operations, with sizes by name.

Tracing runs the function once on made-up tensors. Sizes that a reader may change get
numbers that nothing else in the experiment has, so that each stays a name of its own.
"""

import contextlib
import itertools
import linecache
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import sympy
import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import PythonKeyTracer, make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv, SLoc
from torch.utils import _pytree as pytree

from . import _live_forms
from ._live_forms import Rewritten, Unsupported, table

__all__ = ["Declared", "Traced", "Unsupported", "place", "trace"]

DTYPES = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}
aten = torch.ops.aten


class Declared(NamedTuple):
    """A tensor's shape, of numbers and names of sizes, and its kind."""

    shape: tuple[int | str, ...]
    kind: str  # "float", "int" or "bool"

    @classmethod
    def parse(cls, name: str, text: str) -> "Declared":
        """Read "n 2", "n int" or "" (a single number).

        >>> Declared.parse("y", "n 2 int")
        Declared(shape=('n', 2), kind='int')
        """
        if not isinstance(text, str):
            raise TypeError(
                f"{name} is declared as {text!r}: expected words such as 'n 2' or "
                "'n int', or a dict of them"
            )
        words = text.split()
        kind = words.pop() if words and words[-1] in DTYPES else "float"
        for word in words:
            if not re.fullmatch(r"[1-9]\d*|[a-z][a-z0-9_]*", word) or word in DTYPES:
                raise ValueError(
                    f"{name} is declared as {text!r}: {word!r} is no size; expected "
                    "whole numbers, lower-case names, and at the end int or bool"
                )
        return cls(tuple(int(w) if w.isdigit() else w for w in words), kind)


@dataclass
class Traced:
    """One function: its graph, its inputs and outputs by name, its sizes as C."""

    name: str
    graph: torch.fx.Graph
    inputs: dict[str, Node]
    outputs: dict[str, Any]
    constants: dict[str, torch.Tensor]
    size: Callable[[Any], str]  # a size or an expression of sizes -> C
    least: dict[str, int]  # the smallest value of each size


# ---- tracing -------------------------------------------------------------------------


def _primes() -> Iterator[int]:
    """Primes from 101: numbers that no product of sizes makes by accident."""
    return (n for n in itertools.count(101) if all(n % k for k in range(2, n)))


def _sizes(declared: Mapping[str, Declared]) -> dict[str, int]:
    """A number for each named size, different from all others and all fixed ones."""
    words = list(dict.fromkeys(s for d in declared.values() for s in d.shape))
    fixed = {w for w in words if isinstance(w, int)}
    free = (p for p in _primes() if p not in fixed)
    return {w: next(free) for w in words if isinstance(w, str)}


def place(node: Node) -> str:
    """The line of the page that made a node: 'page.py, line 12, in loss: y = ...'."""
    return node.stack_trace or "a line that torch doesn't tell"


def _where() -> str | None:
    """The innermost line outside torch and this module, of the code that runs now."""
    frame, own = sys._getframe(1), (__file__, _live_forms.__file__)
    while frame:
        code = frame.f_code
        if code.co_name == "returning_leaves" and code.co_filename in own:
            return None
        if "/torch/" not in code.co_filename and code.co_filename not in own:
            text = linecache.getline(code.co_filename, frame.f_lineno).strip()
            file = code.co_filename.rsplit("/", 1)[-1]
            return f"{file}, line {frame.f_lineno}, in {code.co_name}: {text}"
        frame = frame.f_back
    return None


@contextlib.contextmanager
def _lines_kept() -> Iterator[None]:
    """While this lasts, torch's tracer notes the page's line for nodes and guards."""
    create, locate = PythonKeyTracer.create_node, ShapeEnv._get_sloc

    def create_node(self: PythonKeyTracer, *args: Any, **kwargs: Any) -> Node:
        node = create(self, *args, **kwargs)
        node.stack_trace = _where()
        return node

    def get_sloc(self: ShapeEnv, framework_loc: str | None = None) -> SLoc:
        return SLoc(locate(self, framework_loc).framework_loc, _where())

    PythonKeyTracer.create_node, ShapeEnv._get_sloc = create_node, get_sloc
    try:
        yield
    finally:
        PythonKeyTracer.create_node, ShapeEnv._get_sloc = create, locate


def _raised(error: BaseException, source: str) -> str:
    """Where an error left the page's own code."""
    step, line = error.__traceback__, None
    while step:
        if step.tb_frame.f_code.co_filename == source:
            line = step.tb_lineno
        step = step.tb_next
    if line is None:
        return "the function"
    text = linecache.getline(source, line).strip()
    return f"{source.rsplit('/', 1)[-1]}, line {line}: {text}"


def _words(error: Exception) -> str:
    """The first sentence of torch's message, which may run over pages."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:200]


def _reads_values(node: Node) -> bool:
    """True for .item() and for shapes that depend on values, as that of x[x > 0]."""
    sizes = getattr(node.meta.get("val"), "shape", ())
    symbols = {
        str(s)
        for size in sizes
        if isinstance(size, torch.SymInt)
        for s in size.node.expr.free_symbols
    }
    unknown = any(s.startswith(("u", "zu")) for s in symbols)
    return unknown or node.target == aten._local_scalar_dense.default


def _graph(fn: Callable, examples: list) -> GraphModule:
    def rewritten(*args):
        with Rewritten(_where):
            return fn(*args)

    try:
        with _lines_kept():
            module = make_fx(
                torch.func.functionalize(rewritten, remove="mutations_and_views"),
                decomposition_table=table(),
                tracing_mode="symbolic",
            )(*examples)
    except Unsupported:
        raise
    except Exception as error:
        where = _raised(error, fn.__code__.co_filename)
        raise Unsupported(
            f"{fn.__name__} can't be traced ({where}): {_words(error)}. A step must "
            "be made of torch operations on its arguments, without .item(), NumPy or "
            "branches on values"
        ) from error
    for node in module.graph.nodes:
        if _reads_values(node):
            raise Unsupported(
                f"{fn.__name__} can't be traced ({place(node)}): {node.target} makes a "
                "number or a size of values"
            )
    module.graph.eliminate_dead_code()
    return module


def _named(name: str, tree: Any) -> dict[str, Any]:
    """{"params.w1": leaf, ...}: the leaves of an argument or of a result."""
    if isinstance(tree, Mapping):
        return {
            k: v for key in tree for k, v in _named(f"{name}.{key}", tree[key]).items()
        }
    return {name: tree}


def _outputs(fn: Callable, result: Any) -> list[str]:
    if not isinstance(result, Mapping) or not result:
        raise TypeError(
            f"{fn.__name__} returns {type(result).__name__}: expected a dict such as "
            "{'params': ..., 'loss': ...}; an output named like an argument replaces it"
        )
    found = {k: v for name in result for k, v in _named(name, result[name]).items()}
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"{fn.__name__} returns {name} as a {type(value).__name__}: expected "
                "a tensor or a dict of tensors"
            )
    return list(found)


LARGEST_LEAST = 8  # a size that may not be smaller than this is no free size


def _least(fn: Callable, env: Any, names: Mapping[sympy.Symbol, str]) -> dict[str, int]:
    """The smallest value of each size from which on the trace holds.

    torch notes what it took for granted about sizes; refuse what no bound settles.
    """
    least = dict.fromkeys(names.values(), 2)
    for guard in env.guards:
        symbols = sorted(guard.expr.free_symbols, key=str)
        for low in range(2, LARGEST_LEAST + 1):
            if _holds(guard.expr, symbols, low, env, names):
                break
        else:
            raise Unsupported(
                f"{fn.__name__} does something else for other sizes: it needs "
                f"{_readable(guard.expr, names)} ({_line(guard)})"
            )
        for s in symbols:
            if s in names:
                least[names[s]] = max(least[names[s]], low)
    return least


def _holds(expr: Any, symbols: list, low: int, env: Any, names: Mapping) -> bool:
    """Whether a guard holds for sizes from `low` on that grow at different paces."""
    for k in range(60):
        values = {
            s: low + (k * (7 + 4 * i)) % 97 if s in names else _hint(env, s)
            for i, s in enumerate(symbols)
        }
        if not bool(expr.subs(values)):
            return False
    return True


def _line(guard: Any) -> str:
    return guard.sloc.maybe_user_loc or str(guard.sloc)


def _hint(env: Any, symbol: sympy.Symbol) -> int:
    found = getattr(env, "backed_var_to_val", None) or env.var_to_val
    return int(found[symbol])


def _readable(expr: Any, names: Mapping[sympy.Symbol, str]) -> str:
    return str(expr.subs({s: sympy.Symbol(n) for s, n in names.items()}))


def trace(
    fn: Callable, arguments: Mapping[str, Any], declared: Mapping[str, Declared]
) -> Traced:
    """Trace fn, whose arguments are trees of declared tensors.

    `arguments` gives each argument's tree of tensor names; `declared` every tensor's
    shape and kind. Raises Unsupported, with the line, for what can't be traced.
    """
    numbers = _sizes(declared)

    def example(name: str) -> torch.Tensor:
        shape, kind = declared[name]
        return torch.zeros([numbers.get(s, s) for s in shape], dtype=DTYPES[kind])

    seen: list[str] = []

    def returning_leaves(*args):
        result = fn(*args)
        seen[:] = _outputs(fn, result)
        return [leaf for key in result for leaf in _named(key, result[key]).values()]

    returning_leaves.__name__, code = fn.__name__, fn.__code__
    wrapped = _Named(returning_leaves, fn.__name__, code)
    inputs = [n for tree in arguments.values() for n in pytree.tree_leaves(tree)]
    examples = [pytree.tree_map(example, tree) for tree in arguments.values()]
    module = _graph(wrapped, examples)
    nodes = [n for n in module.graph.nodes if n.op == "placeholder"]
    found = dict(zip(inputs, nodes, strict=True))
    (result,) = (n.args[0] for n in module.graph.nodes if n.op == "output")
    env = module.shape_env
    symbols = _symbols(fn, found, declared, env)
    named = {s: n for s, n in symbols.items() if isinstance(n, str)}
    least = _least(fn, env, named)
    constants = {
        n.name: getattr(module, n.target)
        for n in module.graph.nodes
        if n.op == "get_attr"
    }
    outputs = dict(zip(seen, result, strict=True))
    size = _Size(symbols, env)
    return Traced(fn.__name__, module.graph, found, outputs, constants, size, least)


class _Named:
    """A function under another one's name and code, for messages."""

    def __init__(self, fn: Callable, name: str, code: Any):
        self.fn, self.__name__, self.__code__ = fn, name, code

    def __call__(self, *args: Any) -> Any:
        return self.fn(*args)


def _symbols(
    fn: Callable,
    inputs: Mapping[str, Node],
    declared: Mapping[str, Declared],
    env: Any,
) -> dict[sympy.Symbol, str | int]:
    """Torch's symbols for sizes -> the declared names and numbers."""
    found: dict[sympy.Symbol, str | int] = {}
    for name, node in inputs.items():
        for word, size in zip(
            declared[name].shape, node.meta["val"].shape, strict=True
        ):
            expr = size.node.expr if isinstance(size, torch.SymInt) else None
            if expr is not None and expr.is_Symbol:
                found[expr] = word
            elif isinstance(word, str):
                fixed = [g for g in env.guards if g.expr.has(sympy.Integer(int(size)))]
                where = f" ({_line(fixed[0])})" if fixed else ""
                raise Unsupported(
                    f"{fn.__name__} works for one value of the size {word} only{where}"
                )
    return found


class _Size:
    """Writes a size, or an expression of sizes, in C.

    The names become C variables n_<name>; numbers stay numbers.
    """

    def __init__(self, symbols: Mapping[sympy.Symbol, str | int], env: Any):
        self.known = {
            s: sympy.Integer(w) if isinstance(w, int) else sympy.Symbol(f"n_{w}")
            for s, w in symbols.items()
        }
        self.env = env

    def __call__(self, value: Any) -> str:
        expr = getattr(getattr(value, "node", None), "expr", None)
        if expr is None:
            return str(value)
        expr = sympy.sympify(expr).subs(self.known)
        for symbol in expr.free_symbols:
            if not str(symbol).startswith("n_"):  # a fixed size that is no input's
                expr = expr.subs(symbol, _hint(self.env, symbol))
        return _in_c(expr)


def _in_c(expr: sympy.Expr) -> str:
    """A sympy expression of sizes as C; refuses what it doesn't know."""
    if expr.is_Integer or expr.is_Symbol:
        return str(expr)
    if expr.is_Float:
        return f"{float(expr)!r}f"
    parts = [_in_c(a) for a in expr.args]
    if expr.is_Add:
        return f"({' + '.join(parts)})"
    if expr.is_Mul:
        return f"({' * '.join(parts)})"
    kind = type(expr).__name__
    if kind == "Pow" and expr.args[1].is_Integer and int(expr.args[1]) > 0:
        return f"({' * '.join([parts[0]] * int(expr.args[1]))})"
    if kind in ("FloorDiv", "CleanDiv"):
        return f"({parts[0]} / {parts[1]})"
    if kind in ("IntTrueDiv", "FloatTrueDiv"):
        return f"((float){parts[0]} / (float){parts[1]})"
    if kind == "ToFloat":
        return f"((float){parts[0]})"
    if kind in ("Mod", "PythonMod"):
        return f"({parts[0]} % {parts[1]})"
    raise Unsupported(f"a size is computed as {expr}: {kind} is not supported")
