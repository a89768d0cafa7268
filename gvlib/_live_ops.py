"""What each of torch's operations is in C: one place per kind of operation.

Three kinds, by what a rule is given and gives back:

- `value`: the C expression of one element, from expressions of its arguments' elements;
- `remap`: where an element of a view lies in its source (an index for an index);
- `fill`: statements that fill the whole result, for what is no element by element work.

To add an operation, write one rule here; an operation without a rule is refused by name
(`_live_c.Writer`), and so is a keyword argument that its rule doesn't name.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.fx import Node

if TYPE_CHECKING:
    from ._live_c import Writer

__all__ = ["COSTLY", "FILLS", "KEYWORDS", "REMAPS", "VALUES", "c_type", "cast"]

aten, prims = torch.ops.aten, torch.ops.prims
Index = list[str]  # one C expression per dimension

VALUES: dict[Any, Callable[["Writer", Node, Index], str]] = {}
REMAPS: dict[Any, Callable[["Writer", Node, Index], Index]] = {}
FILLS: dict[Any, Callable[["Writer", Node], None]] = {}
KEYWORDS: dict[Any, tuple[str, ...]] = {}
COSTLY: set = set()  # worth storing, so that nothing computes it twice

# Keyword arguments that say how torch stores a result, not what it is. The dtype of a
# result is checked on the result itself.
STORAGE = ("dtype", "layout", "device", "pin_memory", "memory_format")


def _rule(table: dict, targets: Sequence, keywords: Sequence[str]) -> Callable:
    def register(rule: Callable) -> Callable:
        for target in targets:
            table[target] = rule
            KEYWORDS[target] = (*keywords, *STORAGE)
        return rule

    return register


def value(*targets: Any, keywords: Sequence[str] = ()) -> Callable:
    """A rule for the C expression of one element."""
    return _rule(VALUES, targets, keywords)


def remap(*targets: Any, keywords: Sequence[str] = ()) -> Callable:
    """A rule for the place of a view's element in its source, the first argument."""
    return _rule(REMAPS, targets, keywords)


def fill(*targets: Any, keywords: Sequence[str] = ()) -> Callable:
    """A rule that writes the statements which fill a whole result."""
    return _rule(FILLS, targets, keywords)


# ---- numbers and kinds ---------------------------------------------------------------

C_TYPES = {torch.float32: "float", torch.int64: "int", torch.bool: "int"}


def c_type(dtype: torch.dtype) -> str | None:
    """The kind in C, "float" or "int"; None for a dtype that isn't supported."""
    return C_TYPES.get(dtype)


def literal(number: float, kind: str) -> str:
    """A Python number as a C constant.

    >>> literal(0.1, "float"), literal(2.0, "int"), literal(float("-inf"), "float")
    ('0.1f', '2', '-INFINITY')
    """
    if kind == "int":
        return str(int(number))
    if math.isnan(number):
        return "NAN"
    if math.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    text = str(np.float32(number))
    return f"{text}f" if any(c in text for c in ".e") else f"{text}.f"


def cast(text: str, given: str, wanted: str) -> str:
    """The expression, converted where the kinds differ."""
    return text if given == wanted else f"({wanted}){text}"


def kind_of(w: "Writer", argument: Any) -> str:
    """The kind of an argument in C: "float" or "int"."""
    if isinstance(argument, Node):
        return w.kind(argument)
    is_real = isinstance(argument, float | torch.SymFloat)
    return "float" if is_real else "int"


def common(w: "Writer", *arguments: Any) -> str:
    """The kind in which torch compares its arguments."""
    kinds = [kind_of(w, a) for a in arguments]
    return "float" if "float" in kinds else "int"


# ---- element by element --------------------------------------------------------------

# {a}, {b}: the arguments, converted to the result's kind.
ARITHMETIC = {
    "({a} + {b})": [aten.add.Tensor, aten.add.Scalar, prims.add.default],
    "({a} - {b})": [aten.sub.Tensor, aten.sub.Scalar, prims.sub.default],
    "({a} * {b})": [aten.mul.Tensor, aten.mul.Scalar, prims.mul.default],
    "({a} / {b})": [aten.div.Tensor, aten.div.Scalar, prims.div.default],
}
COMPARISONS = {
    "({a} == {b})": [aten.eq.Tensor, aten.eq.Scalar, prims.eq.default],
    "({a} != {b})": [aten.ne.Tensor, aten.ne.Scalar, prims.ne.default],
    "({a} < {b})": [aten.lt.Tensor, aten.lt.Scalar, prims.lt.default],
    "({a} <= {b})": [aten.le.Tensor, aten.le.Scalar, prims.le.default],
    "({a} > {b})": [aten.gt.Tensor, aten.gt.Scalar, prims.gt.default],
    "({a} >= {b})": [aten.ge.Tensor, aten.ge.Scalar, prims.ge.default],
}
LOGIC = {
    "(({a}) && ({b}))": [aten.logical_and.default],
    "(({a}) || ({b}))": [aten.logical_or.default],
    "(!({a}) != !({b}))": [aten.logical_xor.default],
    "({a} & {b})": [aten.bitwise_and.Tensor, aten.bitwise_and.Scalar],
    "({a} | {b})": [aten.bitwise_or.Tensor, aten.bitwise_or.Scalar],
    "({a} ^ {b})": [aten.bitwise_xor.Tensor, aten.bitwise_xor.Scalar],
}
# Of one float argument. Those marked by * are costly.
UNARY = {
    "(-{a})": "neg",
    "__builtin_fabsf({a})": "abs",
    "__builtin_floorf({a})": "floor",
    "__builtin_ceilf({a})": "ceil",
    "__builtin_truncf({a})": "trunc",
    "__builtin_nearbyintf({a})": "round",
    "gv_relu({a})": "relu",
    "gv_sign({a})": "sign sgn",
    "(1.f / {a})": "reciprocal*",
    "__builtin_sqrtf({a})": "sqrt*",
    "(1.f / __builtin_sqrtf({a}))": "rsqrt*",
    "gv_exp({a})": "exp*",
    "gv_expm1({a})": "expm1*",
    "gv_log({a})": "log*",
    "gv_log1p({a})": "log1p*",
    "gv_sin({a})": "sin*",
    "gv_cos({a})": "cos*",
    "gv_tanh({a})": "tanh*",
    "gv_sigmoid({a})": "sigmoid*",
    "gv_erf({a})": "erf*",
}
INTEGER_UNARY = {
    "neg": "(-{a})",
    "abs": "__builtin_abs({a})",
    "sign": "(({a} > 0) - ({a} < 0))",
}


def _binary(template: str, converts: Callable) -> Callable:
    def rule(w: "Writer", node: Node, index: Index) -> str:
        kind = converts(w, node)
        a, b = (w.operand(x, node, index, kind) for x in node.args[:2])
        if node.kwargs.get("alpha", 1) != 1:
            b = f"({w.operand(node.kwargs['alpha'], node, [], kind)} * {b})"
        return template.format(a=a, b=b)

    return rule


def _register_binary() -> None:
    result = lambda w, node: w.kind(node)  # noqa: E731
    compared = lambda w, node: common(w, *node.args[:2])  # noqa: E731
    for table, kind in (
        (ARITHMETIC, result),
        (COMPARISONS, compared),
        (LOGIC, compared),
    ):
        for template, targets in table.items():
            keywords = ("alpha",) if table is ARITHMETIC else ()
            value(*targets, keywords=keywords)(_binary(template, kind))
    COSTLY.update(ARITHMETIC["({a} / {b})"])


def _unary(template: str, name: str) -> Callable:
    def rule(w: "Writer", node: Node, index: Index) -> str:
        kind = w.kind(node)
        text = template
        if kind == "int":
            if name not in INTEGER_UNARY:
                raise w.refusal(node, f"{name} of whole numbers")
            text = INTEGER_UNARY[name]
        return text.format(a=w.operand(node.args[0], node, index, kind))

    return rule


def _register_unary() -> None:
    for template, names in UNARY.items():
        for word in names.split():
            name = word.rstrip("*")
            targets = [
                getattr(space, name).default
                for space in (aten, prims)
                if hasattr(space, name)
            ]
            value(*targets)(_unary(template, name))
            if word.endswith("*"):
                COSTLY.update(targets)


_register_binary()
_register_unary()


@value(aten.logical_not.default, aten.bitwise_not.default)
def _not(w: "Writer", node: Node, index: Index) -> str:
    boolean = node.meta["val"].dtype == torch.bool
    a = w.operand(node.args[0], node, index, kind_of(w, node.args[0]))
    return f"(!({a}))" if boolean else f"(~{a})"


@value(
    aten._to_copy.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.detach_copy.default,
    aten.alias_copy.default,
    aten.lift_fresh_copy.default,
    aten.contiguous.default,
    prims.convert_element_type.default,
    keywords=("non_blocking",),
)
def _copy(w: "Writer", node: Node, index: Index) -> str:
    given = w.kind(node.args[0])
    text = w.operand(node.args[0], node, index, given)
    if node.meta["val"].dtype == torch.bool:
        return f"({text} != 0)"
    return cast(text, given, w.kind(node))


@value(aten.copy.default)
def _copied(w: "Writer", node: Node, index: Index) -> str:
    return w.operand(node.args[1], node, index, w.kind(node))


@value(aten.copy_.default)
def _copied_into(w: "Writer", node: Node, index: Index) -> str:
    """Some of torch's own formulas overwrite a value that nothing reads again."""
    if any(user > node for user in node.args[0].users):
        raise w.refusal(node, "overwriting a value that is still needed (copy_)")
    return w.operand(node.args[1], node, index, w.kind(node))


@value(aten.isnan.default)
def _isnan(w: "Writer", node: Node, index: Index) -> str:
    a = w.operand(node.args[0], node, index, w.kind(node.args[0]))
    return f"({a} != {a})"


@value(aten.where.self, prims.where.default)
def _where(w: "Writer", node: Node, index: Index) -> str:
    test, *ends = node.args
    a, b = (w.operand(x, node, index, w.kind(node)) for x in ends)
    return f"({w.operand(test, node, index, 'int')} ? {a} : {b})"


POWERS = {
    0.0: "1.f",
    0.5: "__builtin_sqrtf({a})",
    -0.5: "(1.f / __builtin_sqrtf({a}))",
    1.0: "{a}",
    -1.0: "(1.f / {a})",
    2.0: "gv_square({a})",
    -2.0: "(1.f / gv_square({a}))",
    3.0: "gv_cube({a})",
}


@value(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar)
def _power(w: "Writer", node: Node, index: Index) -> str:
    if w.kind(node) == "int":
        raise w.refusal(node, "a power of whole numbers")
    base, exponent = node.args
    a = w.operand(base, node, index, "float")
    if isinstance(exponent, int | float) and float(exponent) in POWERS:
        return POWERS[float(exponent)].format(a=a)
    return f"gv_pow({a}, {w.operand(exponent, node, index, 'float')})"


COSTLY.update([aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar])


@value(aten.remainder.Tensor, aten.remainder.Scalar)
def _remainder(w: "Writer", node: Node, index: Index) -> str:
    kind = w.kind(node)
    a, b = (w.operand(x, node, index, kind) for x in node.args[:2])
    return f"gv_{'i' if kind == 'int' else 'f'}mod({a}, {b})"


def _bounded(w: "Writer", node: Node, text: str, low: Any, high: Any, index: Index):
    kind = w.kind(node)
    prefix = "gv_i" if kind == "int" else "gv_"
    for name, bound in (("max", low), ("min", high)):
        if bound is not None:
            text = f"{prefix}{name}({text}, {w.operand(bound, node, index, kind)})"
    return text


@value(
    aten.clamp.default,
    aten.clamp.Tensor,
    aten.clamp_min.default,
    aten.clamp_min.Tensor,
    aten.maximum.default,
    keywords=("min", "max"),
)
def _clamp(w: "Writer", node: Node, index: Index) -> str:
    low, high, *_ = (*node.args[1:], None, None)
    low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
    text = w.operand(node.args[0], node, index, w.kind(node))
    return _bounded(w, node, text, low, high, index)


@value(aten.clamp_max.default, aten.clamp_max.Tensor, aten.minimum.default)
def _below(w: "Writer", node: Node, index: Index) -> str:
    text = w.operand(node.args[0], node, index, w.kind(node))
    return _bounded(w, node, text, None, node.args[1], index)


# ---- made values ---------------------------------------------------------------------

FULL = {
    aten.full.default: 1,
    aten.full_like.default: 1,
    aten.scalar_tensor.default: 0,
    aten.new_full.default: 2,
}


@value(*FULL)
def _full(w: "Writer", node: Node, index: Index) -> str:
    return w.operand(node.args[FULL[node.target]], node, [], w.kind(node))


@value(
    aten.zeros_like.default,
    aten.new_zeros.default,
    aten.zeros.default,
    # What torch fills before anybody reads it.
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_permuted.default,
    aten.new_empty.default,
)
def _zeros(w: "Writer", node: Node, index: Index) -> str:
    return literal(0, w.kind(node))


@value(aten.ones_like.default, aten.new_ones.default, aten.ones.default)
def _ones(w: "Writer", node: Node, index: Index) -> str:
    return literal(1, w.kind(node))


@value(aten.arange.start_step, aten.arange.start, aten.arange.default)
def _arange(w: "Writer", node: Node, index: Index) -> str:
    start, _, step, *_ = (*node.args, 1, 1) if len(node.args) > 1 else (0, 0, 1)
    kind = w.kind(node)
    first, step = (w.operand(x, node, [], kind) for x in (start, step))
    return f"({first} + {cast(index[0], 'int', kind)} * {step})"


@value(prims.iota.default, keywords=("start", "step", "requires_grad"))
def _iota(w: "Writer", node: Node, index: Index) -> str:
    start, step = (
        w.operand(node.kwargs[k], node, [], "int") for k in ("start", "step")
    )
    return f"({start} + {index[0]} * {step})"


# ---- views: the same numbers at other places -----------------------------------------


@remap(aten.permute.default, aten.permute_copy.default)
def _permute(w: "Writer", node: Node, index: Index) -> Index:
    source = [""] * len(index)
    for place, d in zip(index, node.args[1], strict=True):
        source[d] = place
    return source


@remap(aten.t.default, aten.t_copy.default)
def _t(w: "Writer", node: Node, index: Index) -> Index:
    return index[::-1]


@remap(aten.transpose.int, aten.transpose_copy.int)
def _transpose(w: "Writer", node: Node, index: Index) -> Index:
    a, b = node.args[1:]
    source = list(index)
    source[a], source[b] = source[b], source[a]
    return source


@remap(
    aten.expand.default,
    aten.expand_copy.default,
    keywords=("implicit",),
)
def _expand(w: "Writer", node: Node, index: Index) -> Index:
    return w.broadcast(w.shape(node.args[0]), index)


@remap(prims.broadcast_in_dim.default)
def _broadcast_in_dim(w: "Writer", node: Node, index: Index) -> Index:
    shape = w.shape(node.args[0])
    return [
        "0" if s == "1" else index[d] for s, d in zip(shape, node.args[2], strict=True)
    ]


@remap(
    aten.view.default,
    aten.view_copy.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.unsqueeze_copy.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze_copy.dim,
    aten.squeeze_copy.dims,
    prims.squeeze.default,
)
def _ones_only(w: "Writer", node: Node, index: Index) -> Index:
    """A view that only adds or drops dimensions of size 1; see Writer.reshapes."""
    kept = (i for i, s in zip(index, w.shape(node), strict=True) if s != "1")
    return ["0" if s == "1" else next(kept) for s in w.shape(node.args[0])]


@remap(aten.select.int, aten.select_copy.int)
def _select(w: "Writer", node: Node, index: Index) -> Index:
    d, place = node.args[1:]
    shape = w.shape(node.args[0])
    d %= len(shape)
    negative = isinstance(place, int) and place < 0
    text = f"({shape[d]} - {-place})" if negative else w.number(place)
    return [*index[:d], text, *index[d:]]


@remap(
    aten.slice.Tensor,
    aten.slice_copy.Tensor,
    keywords=("dim", "start", "end", "step"),
)
def _slice(w: "Writer", node: Node, index: Index) -> Index:
    d, start, _, step = _slice_arguments(w, node, 1)
    source = list(index)
    source[d] = _along(source[d], start, step)
    return source


def _slice_arguments(w: "Writer", node: Node, first: int) -> tuple[int, str, str, int]:
    """(dimension, start, length, step) of a slice, start counted from the front."""
    names = ("dim", "start", "end", "step")
    given = dict(zip(names, node.args[first:], strict=False)) | dict(node.kwargs)
    shape = w.shape(node.args[0])
    d, step = given.get("dim", 0) % len(shape), given.get("step", 1)
    if not isinstance(step, int):
        raise w.refusal(node, "a slice whose step is a size")
    start = given.get("start") or 0
    text = w.number(start)
    if isinstance(start, int) and start < 0:
        text = f"gv_imax({shape[d]} - {-start}, 0)"
    length = w.shape(node if first == 1 else node.args[1])[d]
    return d, text, length, step


def _along(place: str, start: str, step: int) -> str:
    place = place if step == 1 else f"({place} * {step})"
    return place if start == "0" else f"({start} + {place})"


@remap(aten.flip.default)
def _flip(w: "Writer", node: Node, index: Index) -> Index:
    shape = w.shape(node)
    turned = {d % len(shape) for d in node.args[1]}
    return [
        f"({s} - 1 - {i})" if d in turned else i
        for d, (i, s) in enumerate(zip(index, shape, strict=True))
    ]


# ---- picking and putting by index ----------------------------------------------------


def _clean_index(w: "Writer", node: Node, index: Index, size: str) -> str:
    """An index tensor's element, counted from the end where it is negative."""
    return f"gv_wrap({w.operand(node, node, index, 'int')}, {size})"


@value(aten.gather.default, keywords=("sparse_grad",))
def _gather(w: "Writer", node: Node, index: Index) -> str:
    source, d, places = node.args[:3]
    where = list(index)
    where[d] = _clean_index(w, places, index, w.shape(source)[d])
    return w.element(source, where)


@value(aten.index_select.default)
def _index_select(w: "Writer", node: Node, index: Index) -> str:
    source, d, places = node.args
    where = list(index)
    where[d] = _clean_index(w, places, [index[d]], w.shape(source)[d])
    return w.element(source, where)


@value(aten.embedding.default)
def _embedding(w: "Writer", node: Node, index: Index) -> str:
    table, places = node.args[:2]
    row = _clean_index(w, places, index[:-1], w.shape(table)[0])
    return w.element(table, [row, index[-1]])


COSTLY.update([aten.index_select.default, aten.embedding.default])


def _advanced(
    w: "Writer", node: Node, source: Node, places: Sequence, index: Index
) -> Index:
    """Where element `index` of source[places] lies in source.

    The index tensors broadcast together; their dimensions stand where the first of
    them stood, or in front when a plain dimension lies between them.
    """
    given = [d for d, p in enumerate(places) if p is not None]
    if any(w.dtype(places[d]) == torch.bool for d in given):
        raise w.refusal(node, "an index of truth values: its length isn't known")
    rank = max(len(w.shape(places[d])) for d in given)
    together = given == list(range(given[0], given[-1] + 1))
    first = given[0] if together else 0
    common, plain = index[first : first + rank], index[:first] + index[first + rank :]
    rest = iter(plain)
    where = []
    for d, size in enumerate(w.shape(source)):
        if d in given:
            inner = w.broadcast(w.shape(places[d]), common)
            where.append(_clean_index(w, places[d], inner, size))
        else:
            where.append(next(rest))
    return where


@value(aten.index.Tensor)
def _index(w: "Writer", node: Node, index: Index) -> str:
    source, places = node.args
    return w.element(source, _advanced(w, node, source, places, index))


COSTLY.add(aten.index.Tensor)


@value(aten.select_scatter.default)
def _select_scatter(w: "Writer", node: Node, index: Index) -> str:
    source, part, d, place = node.args
    d %= len(index)
    inside = w.element(part, index[:d] + index[d + 1 :])
    at = f"gv_wrap({w.number(place)}, {w.shape(node)[d]})"
    return f"({index[d]} == {at} ? {inside} : {w.element(source, index)})"


@value(aten.slice_scatter.default, keywords=("dim", "start", "end", "step"))
def _slice_scatter(w: "Writer", node: Node, index: Index) -> str:
    source, part = node.args[:2]
    d, start, length, step = _slice_arguments(w, node, 2)
    if length == w.shape(node)[d] and step == 1:
        return w.element(part, index)
    offset = f"({index[d]} - {start})"
    within = list(index)
    within[d] = offset if step == 1 else f"({offset} / {step})"
    hit = f"{offset} >= 0 && {offset} < {step} * {length}"
    hit += "" if step == 1 else f" && {offset} % {step} == 0"
    return f"(({hit}) ? {w.element(part, within)} : {w.element(source, index)})"


@fill(
    aten.scatter.value,
    aten.scatter.src,
    aten.scatter_add.default,
)
def _scatter(w: "Writer", node: Node) -> None:
    source, d, places, new = node.args
    target = w.copy_of(node, source)
    adds = node.target == aten.scatter_add.default

    def put(index: Index) -> str:
        where = list(index)
        where[d] = _clean_index(w, places, index, w.shape(node)[d])
        text = w.operand(new, new, index, w.kind(node))
        return f"{w.at(target, w.shape(node), where)} {'+' if adds else ''}= {text};"

    w.loop(w.shape(places), put)


@fill(aten.index_put.default, aten._unsafe_index_put.default, keywords=("accumulate",))
def _index_put(w: "Writer", node: Node) -> None:
    source, places, new, *adds = node.args
    adds = adds[0] if adds else node.kwargs.get("accumulate", False)
    target = w.copy_of(node, source)
    given = [p for p in places if p is not None]
    inner = w.broadcast_shape([w.shape(p) for p in given])
    plain = [
        s for d, s in enumerate(w.shape(source)) if d >= len(places) or not places[d]
    ]
    first = next(d for d, p in enumerate(places) if p is not None)
    numbers = [d for d, p in enumerate(places) if p is not None]
    first = first if numbers == list(range(first, first + len(numbers))) else 0
    shape = plain[:first] + inner + plain[first:]

    def put(index: Index) -> str:
        where = _advanced(w, node, source, places, index)
        text = w.element(new, w.broadcast(w.shape(new), index))
        return f"{w.at(target, w.shape(node), where)} {'+' if adds else ''}= {text};"

    w.loop(shape, put)


@fill(aten.cat.default, keywords=("dim",))
def _cat(w: "Writer", node: Node) -> None:
    parts, shape = node.args[0], w.shape(node)
    d = (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) % len(shape)
    target, offset = w.buffer(node), "0"
    for part in parts:
        start = offset

        def put(index: Index, part: Node = part, start: str = start) -> str:
            where = list(index)
            where[d] = _along(where[d], start, 1)
            text = w.operand(part, part, index, w.kind(node))
            return f"{w.at(target, shape, where)} = {text};"

        w.loop(w.shape(part), put)
        length = w.shape(part)[d]
        offset = length if offset == "0" else f"({offset} + {length})"


@value(aten.constant_pad_nd.default)
def _pad(w: "Writer", node: Node, index: Index) -> str:
    source, pads, *filler = node.args
    if not all(isinstance(p, int) for p in pads):
        raise w.refusal(node, "padding by a size")
    where, tests = list(index), []
    for k in range(len(pads) // 2):
        d = len(index) - 1 - k
        where[d] = f"({index[d]} - {pads[2 * k]})"
        tests.append(f"{where[d]} >= 0 && {where[d]} < {w.shape(source)[d]}")
    outside = w.operand(filler[0] if filler else 0, node, [], w.kind(node))
    return f"(({' && '.join(tests)}) ? {w.element(source, where)} : {outside})"


# ---- sums and other reductions -------------------------------------------------------

# What an accumulator starts with, and how it takes a value in. Sums run in double.
SUM = ("0", "{s} += {v};")
LARGEST = ("-INFINITY", "{s} = gv_max({s}, {v});")
SMALLEST = ("INFINITY", "{s} = gv_min({s}, {v});")
REDUCTIONS = {
    aten.sum.dim_IntList: SUM,
    aten.sum.default: SUM,
    prims.sum.default: SUM,
    aten.amax.default: LARGEST,
    prims.amax.default: LARGEST,
    aten.amin.default: SMALLEST,
    prims.amin.default: SMALLEST,
    aten.max.default: LARGEST,
    aten.min.default: SMALLEST,
    aten.any.default: ("0", "{s} |= ({v} != 0);"),
    aten.any.dim: ("0", "{s} |= ({v} != 0);"),
    aten.any.dims: ("0", "{s} |= ({v} != 0);"),
    aten.all.default: ("1", "{s} &= ({v} != 0);"),
    aten.all.dim: ("1", "{s} &= ({v} != 0);"),
    aten.prod.default: ("1", "{s} *= {v};"),
    aten.prod.dim_int: ("1", "{s} *= {v};"),
}


def _dimensions(given: Any, rank: int) -> list[int]:
    """The dimensions a reduction runs over; none given: all."""
    if given is None or given == []:
        return list(range(rank))
    return sorted(d % rank for d in ([given] if isinstance(given, int) else given))


@fill(*REDUCTIONS, keywords=("dim", "keepdim"))
def _reduce(w: "Writer", node: Node) -> None:
    source = node.args[0]
    shape = w.shape(source)
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    dims = _dimensions(given, len(shape))
    start, step = REDUCTIONS[node.target]
    kind = w.kind(node)
    if kind == "int" and "INFINITY" in start:
        start = "(-2147483647 - 1)" if start[0] == "-" else "2147483647"
        step = step.replace("gv_", "gv_i")
    summed = step == SUM[1] or "*=" in step
    accumulator = "double" if summed and kind == "float" else kind
    test = node.target in (aten.any.default, aten.any.dim, aten.any.dims)
    test = test or node.target in (aten.all.default, aten.all.dim)
    taken = w.kind(source) if test else kind
    read = lambda index: w.operand(source, source, index, taken)  # noqa: E731
    write = w.reduce_rows if len(shape) - 1 not in dims and shape else w.reduce_to
    write(node, shape, dims, read, (accumulator, start, step))


@fill(aten.argmax.default, aten.argmin.default, keywords=("dim", "keepdim"))
def _arg(w: "Writer", node: Node) -> None:
    source = node.args[0]
    shape = w.shape(source)
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    dims = _dimensions(given, len(shape))
    better = ">" if node.target == aten.argmax.default else "<"
    target, kind = w.buffer(node), w.kind(source)
    outer = [d for d in range(len(shape)) if d not in dims]

    def body(index: Index) -> str:
        full = dict(zip(outer, index, strict=True))
        places = [full.get(d, f"j{d}") for d in range(len(shape))]
        here = w.operand(source, source, places, kind)
        count = "0"
        for d in dims:
            count = f"j{d}" if count == "0" else f"({count} * {shape[d]} + j{d})"
        # The first of equals; NaN counts as best, as in torch.
        take = (
            f"{kind} v = {here}; if (first || (v {better} best && best == best) || "
            f"(v != v && best == best)) {{ best = v; found = {count}; first = 0; }}"
        )
        inner = w.nested([f"j{d}" for d in dims], [shape[d] for d in dims], take)
        flat = w.flat([shape[d] for d in outer], index)
        return (
            f"{kind} best = 0; int found = 0, first = 1; {inner} "
            f"{target}[{flat}] = found;"
        )

    w.loop([shape[d] for d in outer], body)


# ---- matrix products -----------------------------------------------------------------


@fill(aten.mm.default, aten.bmm.default)
def _matmul(w: "Writer", node: Node) -> None:
    a, b = node.args[:2]
    (left, left_at, *from_a), (right, right_at, *from_b) = w.strided(a), w.strided(b)
    *batch, rows, columns = w.shape(node)
    inner = w.shape(a)[-1]
    w.needs_panel(inner)
    target = w.buffer(node)
    if batch:
        w.statement(
            f"for (int z = 0; z < {batch[0]}; z++) matmul({target} + z * "
            f"({rows} * {columns}), {rows}, {inner}, {columns}, {left} + {left_at} + z "
            f"* {from_a[0]}, {from_a[1]}, {from_a[2]}, {right} + {right_at} + z * "
            f"{from_b[0]}, {from_b[1]}, {from_b[2]});"
        )
        return
    w.statement(
        f"matmul({target}, {rows}, {inner}, {columns}, {left} + {left_at}, "
        f"{from_a[0]}, {from_a[1]}, {right} + {right_at}, {from_b[0]}, {from_b[1]});"
    )
