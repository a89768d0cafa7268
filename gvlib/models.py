"""Few plain networks with their sizes as arguments; any torch module works beside them.

Every class is an ordinary `torch.nn.Module` that maps (n, ...) inputs to (n, classes)
logits, alone or as one member of a `gvlib.Population`.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["CNN", "MLP", "ByrdCNN", "CosineLinear", "Dropout", "ResNet"]

ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sin": torch.sin,
    "gelu": nn.functional.gelu,
    "softplus": nn.functional.softplus,
}
_WORD = 0xFFFFFFFF  # dropout's random numbers are 32-bit words


def _activation(name: str):
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}; use one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _mix(word: Tensor) -> Tensor:
    """Scramble 32-bit words held in int64: the "lowbias32" hash of C. Wellons."""
    word = (word ^ (word >> 16)) * 0x7FEB352D & _WORD
    word = (word ^ (word >> 15)) * 0x846CA68B & _WORD
    return word ^ (word >> 16)


class Dropout(nn.Module):
    """Dropout whose mask is a function of (key, call, position) and nothing else.

    Each unit is zeroed with probability `rate` and the rest divided by 1 - rate
    (Srivastava et al. 2014). Torch draws masks from one global stream, so the mask of a
    network would depend on which others are trained beside it; here a member drops the
    same units alone and in a population, on a CPU and on a GPU. `key` is set from the
    member's seed; `calls` counts the training passes.

    Shapes: any (n, ...) -> the same.
    """

    def __init__(self, rate: float, key: int = 0):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate is {rate}; it must lie in [0, 1)")
        self.register_buffer("rate", torch.tensor(float(rate)))
        self.register_buffer("key", torch.tensor(key))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """Drop units while training; the identity in evaluation."""
        if not self.training:
            return x
        self.calls.add_(1)
        stream = _mix(_mix(self.key & _WORD) + self.calls & _WORD)
        position = torch.arange(x.numel(), device=x.device).view(x.shape)
        uniform = _mix(_mix(position) ^ stream) * 2.0**-32
        return x * (uniform >= self.rate) / (1 - self.rate).to(x.dtype)


class CosineLinear(nn.Module):
    """Cosines between features and class vectors: z_c = h . w_c / (|h| |w_c|).

    The last layer that LDAM needs (Cao et al. 2019). It has no bias; features of zero
    give cosines of zero.

    Shapes: (n, features) -> (n, classes), in [-1, 1].

    >>> head = CosineLinear(3, 2)
    >>> h = torch.randn(4, 3)
    >>> torch.allclose(head(h), head(5 * h), atol=1e-6)
    True
    """

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        # Directions uniform on the sphere, of length 1: only the direction counts, but
        # a shorter vector turns faster at the same learning rate.
        nn.init.normal_(self.weight)
        with torch.no_grad():
            self.weight.copy_(nn.functional.normalize(self.weight, dim=1))

    def forward(self, h: Tensor) -> Tensor:
        """(n, features) -> cosines (n, classes)."""
        unit = nn.functional.normalize
        return nn.functional.linear(unit(h, dim=-1), unit(self.weight, dim=-1))


def _head(kind: str, features: int, classes: int, bias: bool = True) -> nn.Module:
    if kind == "linear":
        return nn.Linear(features, classes, bias=bias)
    if kind == "cosine":
        return CosineLinear(features, classes)
    raise ValueError(f'head is {kind!r}; use "linear" or "cosine"')


class MLP(nn.Module):
    """Fully connected network: flatten, then linear layers with activations between.

    Args:
        sizes: input, hidden ..., output; `MLP(784, 512, 10)` has one hidden layer.
        activation: one of relu, tanh, sin, gelu, softplus.
        dropout: rate after each hidden layer; None leaves dropout out altogether.
        bias: whether the linear layers have one.
        head: "linear", or "cosine" for logits that are cosines, see `CosineLinear`.

    Shapes: (n, ...) with prod(...) = sizes[0] -> (n, sizes[-1]).

    >>> MLP(784, 512, 10)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        *sizes: int,
        activation: str = "relu",
        dropout: float | None = None,
        bias: bool = True,
        head: str = "linear",
    ):
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"sizes are {sizes}; give at least input and output size")
        self.activation = _activation(activation)
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=bias) for a, b in pairwise(sizes[:-1])
        )
        self.layers.append(_head(head, *sizes[-2:], bias=bias))
        self.dropouts = nn.ModuleList(
            Dropout(dropout) for _ in sizes[1:-1] if dropout is not None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) -> logits (n, classes)."""
        h = x.flatten(1)
        for i, layer in enumerate(self.layers[:-1]):
            h = self.activation(layer(h))
            if self.dropouts:
                h = self.dropouts[i](h)
        return self.layers[-1](h)


class CNN(nn.Module):
    """Small convolutional network: 3x3 convolution, 2x2 max-pool, ReLU; then linear.

    Pooling comes before the ReLU: the result is the same bit for bit, on a quarter of
    the numbers.

    Args:
        channels: output channels of each convolution; each halves the image's side.
        shape: (channels, height, width) of an input.
        classes: number of outputs.
        head: "linear", or "cosine" for logits that are cosines, see `CosineLinear`.

    Shapes: (n, *shape) -> (n, classes).

    >>> CNN((8, 16), shape=(1, 28, 28), classes=10)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32),
        *,
        shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        head: str = "linear",
    ):
        super().__init__()
        ins = (shape[0], *channels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(ins)
        )
        height, width = (side >> len(channels) for side in shape[1:])
        if not height * width:
            raise ValueError(
                f"{len(channels)} poolings leave nothing of a {shape} image"
            )
        self.linear = _head(head, channels[-1] * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *shape) -> logits (n, classes)."""
        for convolution in self.convolutions:
            x = torch.relu(nn.functional.max_pool2d(convolution(x), 2))
        return self.linear(x.flatten(1))


class ByrdCNN(nn.Module):
    """The convolutional network of Byrd & Lipton 2019.

    Convolutions of w, w, pooling, 2w, 2w, 2w channels, pooling, then linear layers of
    8w, 2w and `classes` units, w = 64; 3x3 without padding, 2x2 max-pooling, ReLU.

    Args:
        width: w; the paper's is 64.
        shape: (channels, height, width) of an input, at least 20 on a side.
        classes: number of outputs.
        dropout: rate after each hidden linear layer; None leaves dropout out.
        head: "linear", or "cosine" for logits that are cosines, see `CosineLinear`.

    Shapes: (n, *shape) -> (n, classes).

    >>> ByrdCNN(4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        width: int = 64,
        *,
        shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 2,
        dropout: float | None = None,
        head: str = "linear",
    ):
        super().__init__()
        # Each side loses 2 a convolution: (side - 4) / 2, then (side - 6) / 2.
        height, across = (((side - 4) // 2 - 6) // 2 for side in shape[1:])
        if min(height, across) < 1:
            raise ValueError(f"images of {shape} are too small; 20 a side are needed")
        ins = (shape[0], width, width, 2 * width, 2 * width)
        outs = (*ins[1:], 2 * width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3) for a, b in zip(ins, outs, strict=True)
        )
        sizes = (2 * width * height * across, 8 * width, 2 * width, classes)
        self.linear = MLP(*sizes, dropout=dropout, head=head)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *shape) -> logits (n, classes)."""
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if i in (1, 4):  # pooling before the ReLU: the same, on fewer numbers
                x = nn.functional.max_pool2d(x, 2)
            x = torch.relu(x)
        return self.linear(x)


def _norm(kind: str | None, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)  # one group: layer norm over (C, H, W)
    if kind is None:
        return nn.Identity()
    raise ValueError(f'norm is {kind!r}; use "batch", "layer" or None')


class _Block(nn.Module):
    """Two 3x3 convolutions; with `skip`, the input is added before the last ReLU."""

    def __init__(self, ins: int, outs: int, stride: int, skip: bool, norm: str | None):
        super().__init__()
        bias = norm is None
        self.conv1 = nn.Conv2d(ins, outs, 3, stride, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(outs, outs, 3, padding=1, bias=bias)
        self.norm1, self.norm2 = _norm(norm, outs), _norm(norm, outs)
        self.skip, self.stride, self.extra = skip, stride, outs - ins

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm1(self.conv1(x)))
        h = self.norm2(self.conv2(h))
        if (
            self.skip
        ):  # option A of He et al.: stride the input, pad channels with zeros
            short = x[:, :, :: self.stride, :: self.stride]
            h = h + nn.functional.pad(short, (0, 0, 0, 0, 0, self.extra))
        return torch.relu(h)


class ResNet(nn.Module):
    """ResNet of 6n+2 layers for small images (He et al. 2016, section 4.2).

    Args:
        n: blocks in each of the three stages; 3 gives ResNet-20, 9 gives ResNet-56.
        width: channels of the first stage; the others have 2 and 4 times as many.
        channels: channels of an input image.
        classes: number of outputs.
        skip: False removes the skip connections and changes nothing else.
        norm: "batch", "layer" (over channel, height and width) or None.
        head: "linear", or "cosine" for logits that are cosines, see `CosineLinear`.

    Shapes: (n, channels, height, width) -> (n, classes).

    >>> ResNet(1, width=4, channels=1)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n: int = 3,
        *,
        width: int = 16,
        channels: int = 3,
        classes: int = 10,
        skip: bool = True,
        norm: str | None = "batch",
        head: str = "linear",
    ):
        super().__init__()
        if n < 1:
            raise ValueError(f"n is {n}; a ResNet needs at least one block a stage")
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=norm is None)
        self.norm = _norm(norm, width)
        blocks, ins = [], width
        for stage in range(3):
            for block in range(n):
                stride = 2 if stage and not block else 1
                blocks.append(_Block(ins, width << stage, stride, skip, norm))
                ins = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.linear = _head(head, ins, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        h = self.blocks(torch.relu(self.norm(self.conv(x))))
        return self.linear(h.mean(dim=(2, 3)))
