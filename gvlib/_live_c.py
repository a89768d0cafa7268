"""Writes traced functions as C: buffers, loops, and what they share of memory."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node

from ._live_forms import Unsupported
from ._live_ops import COSTLY, FILLS, KEYWORDS, REMAPS, VALUES, c_type, cast, literal
from ._live_trace import Declared, Traced, place

__all__ = ["Tensor", "Writer", "program"]

aten = torch.ops.aten
PRELUDE = Path(__file__).parent / "static" / "live.c"


@dataclass
class Tensor:
    """A tensor that lives between calls: its name, C name, shape and kind."""

    name: str
    shape: tuple[int | str, ...]
    kind: str

    @property
    def c(self) -> str:
        """The C variable that points to it."""
        return "t_" + re.sub(r"\W", "_", self.name)

    @property
    def count(self) -> str:
        """The number of its elements in C."""
        sizes = [str(s) if isinstance(s, int) else f"n_{s}" for s in self.shape]
        return " * ".join(sizes) or "1"


@dataclass
class Buffer:
    """Memory that a function uses while it runs."""

    name: str
    kind: str
    count: str
    fixed: bool  # an output: its memory is its own


@dataclass
class Writer:
    """Writes one traced function.

    Elements are written as expressions inside the loop that uses them; a value gets a
    buffer of its own when it is an output, is used more than once, or is costly.
    """

    traced: Traced
    tensors: Mapping[str, Tensor]
    names: dict[Node, str] = field(default_factory=dict)  # node -> its buffer in C
    buffers: list[Buffer] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    panels: set[str] = field(default_factory=set)
    constants: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Fill `lines`, `buffers`, `panels` and `constants`."""
        for name, node in self.traced.inputs.items():
            self.names[node] = self.tensors[name].c
        self.direct = self._direct_outputs()
        for node in self.traced.graph.nodes:
            if node.op == "get_attr":
                self._constant(node)
            elif node.op == "call_function":
                self._visit(node)
        for name, node in self.traced.outputs.items():
            if self.direct.get(node) != name:
                self._copy_out(name, node)

    def _direct_outputs(self) -> dict[Node, str]:
        """Nodes whose buffer is an output itself: each node for its first name."""
        direct: dict[Node, str] = {}
        for name, node in self.traced.outputs.items():
            if node.op == "call_function" and node.target not in REMAPS:
                direct.setdefault(node, name)
        return direct

    def output(self, name: str) -> str:
        """Where a call writes an output: a state's second buffer, or the tensor's."""
        is_state = name in self.traced.inputs
        return f"{self.tensors[name].c}_new" if is_state else self.tensors[name].c

    # ---- facts about nodes -----------------------------------------------------------

    def shape(self, node: Node) -> list[str]:
        """The sizes of a node's value in C."""
        return [self.traced.size(s) for s in node.meta["val"].shape]

    def dtype(self, node: Node) -> torch.dtype:
        """The dtype torch gave a node."""
        return node.meta["val"].dtype

    def kind(self, node: Node) -> str:
        """The kind of a node's value in C: "float" or "int"."""
        value = node.meta["val"]
        if not isinstance(value, torch.Tensor):
            return "float" if isinstance(value, float | torch.SymFloat) else "int"
        return c_type(value.dtype)

    def number(self, value: Any) -> str:
        """A size or whole number, known or traced, in C."""
        return self.traced.size(value.meta["val"] if isinstance(value, Node) else value)

    def refusal(self, node: Node, what: str) -> Unsupported:
        """The error for something that can't be compiled."""
        return Unsupported(f"{what} is not supported ({place(node)})")

    # ---- elements --------------------------------------------------------------------

    def element(self, node: Node, index: list[str]) -> str:
        """The C expression of one element of a node."""
        if node in self.names:
            return self.at(self.names[node], self.shape(node), index)
        if node.target in REMAPS:
            if self.reshapes(node):
                return self.at(self.pointer(node), self.shape(node), index)
            return self.element(node.args[0], REMAPS[node.target](self, node, index))
        return VALUES[node.target](self, node, index)

    def operand(self, value: Any, node: Node, index: list[str], kind: str) -> str:
        """An argument's element as `node`'s element `index` needs it, as `kind`."""
        if not isinstance(value, Node):
            if isinstance(value, torch.SymInt | torch.SymFloat):
                return cast(self.number(value), "int", kind)
            return literal(value, kind)
        if not isinstance(value.meta["val"], torch.Tensor):
            return cast(self.number(value), self.kind(value), kind)
        if value is not node:
            index = self.broadcast(self.shape(value), index)
        return cast(self.element(value, index), self.kind(value), kind)

    def broadcast(self, shape: Sequence[str], index: Sequence[str]) -> list[str]:
        """The place in `shape` that broadcasting reads for `index`."""
        tail = index[len(index) - len(shape) :]
        return ["0" if s == "1" else i for s, i in zip(shape, tail, strict=True)]

    def broadcast_shape(self, shapes: Sequence[Sequence[str]]) -> list[str]:
        """The shape that these broadcast to together."""
        rank = max(map(len, shapes))
        full = [["1"] * (rank - len(s)) + list(s) for s in shapes]
        return [
            next((s for s in sizes if s != "1"), "1")
            for sizes in zip(*full, strict=True)
        ]

    def flat(self, shape: Sequence[str], index: Sequence[str]) -> str:
        """The number of an element in row-major order."""
        text = "0"
        for size, i in zip(shape, index, strict=True):
            before = "" if text == "0" else f"{text} * {size}"
            text = " + ".join(p for p in (before, "" if i == "0" else i) if p) or "0"
            text = f"({text})" if " " in text else text
        return text

    def at(self, buffer: str, shape: Sequence[str], index: Sequence[str]) -> str:
        """An element of a buffer."""
        return f"{buffer}[{self.flat(shape, index)}]"

    def reshapes(self, node: Node) -> bool:
        """True for a view whose sizes, without the ones, differ from its source's."""
        if REMAPS.get(node.target) is not REMAPS[aten.view.default]:
            return False
        plain = [[s for s in self.shape(n) if s != "1"] for n in (node, node.args[0])]
        return plain[0] != plain[1]

    # ---- buffers ---------------------------------------------------------------------

    def buffer(self, node: Node) -> str:
        """A new buffer for a node: the output's own, where it is one."""
        name = self.direct.get(node)
        c = self.output(name) if name else f"b{len(self.buffers)}_{self.traced.name}"
        count = " * ".join(self.shape(node)) or "1"
        self.buffers.append(Buffer(c, self.kind(node), count, name is not None))
        self.names[node] = c
        return c

    def pointer(self, node: Node) -> str:
        """The node's values in row-major order in memory; stores them if need be."""
        if node in self.names:
            return self.names[node]
        if node.target in REMAPS and self.reshapes(node):
            return self.pointer(node.args[0])
        return self.store(node)

    def store(self, node: Node) -> str:
        """Compute all elements of a node into a buffer."""
        shape = self.shape(node)
        # The expression comes first: inside it, the node has no buffer yet.
        index = [f"i{d}" for d in range(len(shape))]
        text = self.element(node, index)
        target = self.buffer(node)
        self.loop(shape, lambda i: f"{self.at(target, shape, i)} = {text};", free=True)
        return target

    def copy_of(self, node: Node, source: Node) -> str:
        """A buffer for node that begins as a copy of source."""
        shape, kind = self.shape(node), self.kind(node)
        text = self.operand(source, node, [f"i{d}" for d in range(len(shape))], kind)
        target = self.buffer(node)
        self.loop(shape, lambda i: f"{self.at(target, shape, i)} = {text};", free=True)
        return target

    def strided(self, node: Node) -> tuple[str, ...]:
        """(pointer, offset, stride of each dimension): a view without a copy.

        Follows transposed, expanded and sliced views; others are stored first.
        """
        index = [f"i{d}" for d in range(len(self.shape(node)))]
        source, places = node, index
        while source not in self.names and not self.reshapes(source):
            if source.target in REMAPS:
                places = REMAPS[source.target](self, source, places)
            elif source.target != aten.clone.default:
                break
            source = source.args[0]
        known = all(p in index or p.isdigit() for p in places)
        if not known:
            source, places = node, index
        pointer, shape = self.pointer(source), self.shape(source)
        steps = dict.fromkeys(index, "0")
        offset = []
        for d, p in enumerate(places):
            step = " * ".join(shape[d + 1 :]) or "1"
            if p in steps:
                steps[p] = f"({step})" if "*" in step else step
            elif p != "0":
                offset.append(f"{p} * {step}")
        return pointer, " + ".join(offset) or "0", *(steps[p] for p in index)

    def needs_panel(self, inner: str) -> None:
        """A matrix product sums over `inner` terms."""
        self.panels.add(inner)

    # ---- statements ------------------------------------------------------------------

    def statement(self, text: str) -> None:
        """Add a line to the function."""
        self.lines.append(text)

    def nested(self, names: Sequence[str], shape: Sequence[str], body: str) -> str:
        """Loops over `shape`, outermost first."""
        heads = [
            f"for (int {i} = 0; {i} < {s}; {i}++) "
            for i, s in zip(names, shape, strict=True)
        ]
        return f"{''.join(heads)}{{ {body} }}"

    def loop(
        self,
        shape: Sequence[str],
        body: Callable[[list[str]], str],
        free: bool = False,
    ) -> None:
        """A statement for each index; `free`: in any order, each its own element."""
        index = [f"i{d}" for d in range(len(shape))]
        *outer, last = [*zip(index, shape, strict=True)] or [("i", "1")]
        inner = self.nested([last[0]], [last[1]], body(index))
        inner = f"EACH {inner}" if free and shape else inner
        names, sizes = [i for i, _ in outer], [s for _, s in outer]
        text = self.nested(names, sizes, inner) if outer else inner
        self.statement(text if shape else f"{{ {body(index)} }}")

    def reduce_to(
        self, node: Node, shape: list[str], dims: list[int], read: Callable, how: tuple
    ) -> None:
        """A reduction whose last dimension goes: one accumulator at a time."""
        accumulator, start, step = how
        target, kind = self.buffer(node), self.kind(node)
        outer = [d for d in range(len(shape)) if d not in dims]

        def body(index: list[str]) -> str:
            full = dict(zip(outer, index, strict=True))
            value = read([full.get(d, f"j{d}") for d in range(len(shape))])
            inner = self.nested(
                [f"j{d}" for d in dims],
                [shape[d] for d in dims],
                step.format(s="s", v=value),
            )
            place = f"{target}[{self.flat([shape[d] for d in outer], index)}]"
            end = cast("s", accumulator, kind)
            return f"{accumulator} s = {start}; {inner} {place} = {end};"

        self.loop([shape[d] for d in outer], body)

    def reduce_rows(
        self, node: Node, shape: list[str], dims: list[int], read: Callable, how: tuple
    ) -> None:
        """A reduction that keeps the last dimension: whole rows at a time."""
        _, start, step = how
        target = self.buffer(node)
        count = self.buffers[-1].count
        self.statement(f"for (int i = 0; i < {count}; i++) {target}[i] = {start};")
        index = [f"i{d}" for d in range(len(shape))]
        kept = [d for d in range(len(shape)) if d not in dims]
        flat = self.flat([shape[d] for d in kept], [index[d] for d in kept])
        body = step.format(s=f"{target}[{flat}]", v=read(index))
        inner = f"EACH {self.nested([index[-1]], [shape[-1]], body)}"
        self.statement(self.nested(index[:-1], shape[:-1], inner))

    # ---- nodes in turn ---------------------------------------------------------------

    def _visit(self, node: Node) -> None:
        if not isinstance(node.meta.get("val"), torch.Tensor):
            self._check_number(node)
            return
        self._check(node)
        if node.target in FILLS:
            FILLS[node.target](self, node)
        elif node.target in VALUES and self._worth_storing(node):
            self.store(node)

    def _check(self, node: Node) -> None:
        """Refuse, by name, what has no rule."""
        name = str(node.target)
        if node.target not in KEYWORDS:
            raise self.refusal(node, f"the operation {name}")
        if c_type(self.dtype(node)) is None:
            raise self.refusal(node, f"the dtype {self.dtype(node)} (of {name})")
        for key, given in node.kwargs.items():
            if key not in KEYWORDS[node.target] and given not in (None, False):
                raise self.refusal(node, f"the keyword {key}={given!r} of {name}")
        if node.kwargs.get("layout") not in (None, torch.strided):
            raise self.refusal(node, f"the layout {node.kwargs['layout']} of {name}")
        device = node.kwargs.get("device")
        if device is not None and torch.device(device).type != "cpu":
            raise self.refusal(node, f"the device {device} of {name}")

    def _check_number(self, node: Node) -> None:
        value = node.meta.get("val")
        known = isinstance(value, int | float | torch.SymInt | torch.SymFloat)
        if not known:
            raise self.refusal(node, f"the operation {node.target}")

    def _worth_storing(self, node: Node) -> bool:
        if node in self.direct or node.target in COSTLY:
            return True
        made = not any(isinstance(a, Node) for a in node.args)  # a constant: zeros, ...
        return not made and self._uses(node) > 1

    def _uses(self, node: Node) -> int:
        """How many operations read a node, also through views."""
        count = 0
        for user in node.users:
            if user.op == "output":
                count += 1
            elif isinstance(user.meta.get("val"), torch.Tensor):
                view = user.target in REMAPS
                count += self._uses(user) if view else 1
        return count

    def _constant(self, node: Node) -> None:
        """A tensor made of numbers in the function, such as torch.tensor([1, 2])."""
        values = self.traced.constants[node.name]
        node.meta["val"] = values
        if c_type(values.dtype) is None:
            raise self.refusal(node, f"the dtype {values.dtype} (of a constant)")
        kind, name = c_type(values.dtype), f"k_{node.name}_{self.traced.name}"
        numbers = ", ".join(literal(v, kind) for v in values.flatten().tolist())
        self.constants.append(f"static {kind} {name}[] = {{{numbers}}};")
        self.names[node] = name

    def _copy_out(self, name: str, node: Node) -> None:
        """An output that is also something else: an input, a view, another output."""
        tensor, shape, target = self.tensors[name], self.shape(node), self.output(name)
        self.buffers.append(Buffer(target, tensor.kind, tensor.count, True))
        text = self.operand(
            node, node, [f"i{d}" for d in range(len(shape))], tensor.kind
        )
        self.loop(shape, lambda i: f"{self.at(target, shape, i)} = {text};", free=True)


# ---- the whole program ---------------------------------------------------------------


def _share(writer: Writer) -> dict[str, str]:
    """Buffer -> the one whose memory it takes: one of equal size that is done with."""
    spans: dict[str, list[int]] = {}
    for k, line in enumerate(writer.lines):
        for name in re.findall(r"\bb\d+_\w+\b", line):
            spans.setdefault(name, [k, k])[1] = k
    free: list[tuple[int, Buffer]] = []
    shared = {}
    for buffer in writer.buffers:
        if buffer.fixed:
            continue
        first, last = spans[buffer.name]
        fits = lambda old, b=buffer: (old.kind, old.count) == (b.kind, b.count)  # noqa: E731
        done = next((o for o in free if o[0] < first and fits(o[1])), None)
        if done:
            free.remove(done)
        owner = done[1] if done else buffer
        shared[buffer.name] = owner.name
        free.append((last, owner))
    return shared


def _function(
    writer: Writer, table: Mapping[str, int], shared: Mapping[str, str]
) -> str:
    """One exported function: repeats the step, swaps states, stops at a NaN."""
    traced, tensors = writer.traced, writer.tensors
    text = "\n".join(f"    {line}" for line in writer.lines)
    text = re.sub(r"\bb\d+_\w+\b", lambda m: shared[m[0]], text)
    after, finite = [], []
    for name in traced.outputs:
        tensor = tensors[name]
        if name in traced.inputs:
            after.append(
                f"    {{ {tensor.kind} *old = {tensor.c}; tensors[{table[name]}] = "
                f"{tensor.c} = {tensor.c}_new; {tensor.c}_new = old; }}"
            )
        elif not tensor.shape and tensor.kind == "float":
            finite.append(f"{tensor.c}[0] - {tensor.c}[0] == 0")
    test = " && ".join(finite) or "1"
    return "\n".join(
        [
            f"int f_{traced.name}(int repeats) {{",
            "  for (int step = 0; step < repeats; step++) {",
            text,
            *after,
            f"    if (!({test})) return step + 1;",
            "  }",
            "  return repeats;",
            "}",
        ]
    )


def program(
    functions: Sequence[Traced], declared: Mapping[str, Declared]
) -> tuple[str, dict]:
    """The C text of a module and the spec that says how to use it."""
    tensors = {
        name: Tensor(name, d.shape, "float" if d.kind == "float" else "int")
        for name, d in declared.items()
    }
    for traced in functions:
        _add_outputs(tensors, traced)
    writers = [Writer(traced, tensors) for traced in functions]
    for writer in writers:
        writer.write()
    table = {name: k for k, name in enumerate(tensors)}
    sizes = list(
        dict.fromkeys(
            s for t in tensors.values() for s in t.shape if isinstance(s, str)
        )
    )
    text = _text(writers, tensors, table, sizes)
    least = {s: max(f.least.get(s, 2) for f in functions) for s in sizes}
    return text, _spec(functions, tensors, least)


def _add_outputs(tensors: dict[str, Tensor], traced: Traced) -> None:
    """Give every output its tensor, and check that a state keeps its shape and kind."""
    for name, node in traced.outputs.items():
        value = node.meta["val"]
        kind = c_type(value.dtype)
        if kind is None:
            raise Unsupported(
                f"{traced.name} returns {name} as {value.dtype}, which is not "
                f"supported ({place(node)})"
            )
        words = [traced.size(s).removeprefix("n_") for s in value.shape]
        odd = [w for w in words if not w.replace("_", "").isalnum()]
        if odd:
            raise Unsupported(
                f"{traced.name} returns {name} with the size {odd[0]}: expected sizes "
                "of the arguments, or numbers"
            )
        shape = tuple(int(w) if w.isdigit() else w for w in words)
        made = Tensor(name, shape, kind)
        known = tensors.setdefault(name, made)
        if known != made:
            raise Unsupported(
                f"{traced.name} returns {name} of shape {made.shape} ({made.kind}), "
                f"but it is {known.shape} ({known.kind}) elsewhere"
            )


def _text(
    writers: Sequence[Writer],
    tensors: Mapping[str, Tensor],
    table: Mapping[str, int],
    sizes: Sequence[str],
) -> str:
    shares = [_share(w) for w in writers]
    states = {n for w in writers for n in w.traced.outputs if n in w.traced.inputs}
    pointers, setup = [], []
    for name, tensor in tensors.items():
        for c in (tensor.c, f"{tensor.c}_new")[: 1 + (name in states)]:
            pointers.append(f"static {tensor.kind} *{c};")
            setup.append(f"  {c} = take({tensor.count}, 4);")
        setup.append(f"  tensors[{table[name]}] = {tensor.c};")
    before = "  unsigned long scratch = top, most = top;"
    setup.append(before)
    for writer, shared in zip(writers, shares, strict=True):
        # Functions run one after another: their scratch memory is the same.
        setup.append("  top = scratch;")
        owners = set(shared.values())
        for buffer in writer.buffers:
            if buffer.name in owners:
                pointers.append(f"static {buffer.kind} *{buffer.name};")
                setup.append(f"  {buffer.name} = take({buffer.count}, 4);")
        setup.append("  if (top > most) most = top;")
    setup.append("  top = most;")
    panels = sorted({p for w in writers for p in w.panels})
    setup += [f"  panel_rows = gv_imax(panel_rows, {p});" for p in panels]
    setup.append("  panel = take(PANEL * panel_rows, 4);")
    shape = [f"  n_{s} = sizes[{k}];" for k, s in enumerate(sizes)]
    functions = [
        _function(w, table, shared) for w, shared in zip(writers, shares, strict=True)
    ]
    return "\n".join(
        [
            PRELUDE.read_text("utf-8"),
            "/* ---- this experiment: sizes, tensors, functions ---- */",
            f"int sizes[{max(1, len(sizes))}];",
            f"void *tensors[{max(1, len(tensors))}];",
            "int *get_sizes(void) { return sizes; }",
            "void **get_tensors(void) { return tensors; }",
            *(f"static int n_{s};" for s in sizes),
            *pointers,
            *(c for w in writers for c in w.constants),
            "int setup(void) {",
            "  top = (unsigned long)&__heap_base;",
            "  panel_rows = 1;",
            "  full = 0;",
            *shape,
            *setup,
            "  return !full;",
            "}",
            *functions,
            "",
        ]
    )


def _spec(
    functions: Sequence[Traced], tensors: Mapping[str, Tensor], least: dict[str, int]
) -> dict:
    return {
        "format": 1,
        "sizes": least,
        "tensors": {
            n: {"shape": list(t.shape), "dtype": "f32" if t.kind == "float" else "i32"}
            for n, t in tensors.items()
        },
        "functions": {
            f.name: {"inputs": list(f.inputs), "outputs": list(f.outputs)}
            for f in functions
        },
    }
