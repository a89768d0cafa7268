"""Real and made data sets as tensors on the device, and ways to spoil them.

What is drawn at random is drawn on the CPU from an explicit seed and moved afterwards,
so the same seed gives the same numbers on every device.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from . import subsets
from ._dataset import Dataset, _check_labels, _generator, _whole, device
from .sources import Source, cache_folder, find, read
from .subsets import *  # noqa: F403

__all__ = [
    *subsets.__all__,
    "Dataset",
    "cache_folder",
    "circles",
    "corrupt_labels",
    "device",
    "gaussian_images",
    "load",
    "moons",
    "permute_pixels",
    "pixel_permutation",
    "random_pixels",
    "read",
    "shuffle_pixels",
    "two_spirals",
]

_device = device  # functions that have an argument `device` call it by this name

# --------------------------------------------------------------------------- real sets


def load(
    name: str,
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    seed: int | None = None,
    device: str | torch.device = "auto",
    normalize: bool = True,
) -> tuple[Dataset, Dataset]:
    """The training and the test set of "fashion-mnist", "mnist" or "cifar-10".

    x' = (x - mean) / std per channel, with the mean and standard deviation of the full
    training set, or x in [0, 1] where `normalize` is false. Of the first two, 10,000
    training images and all test images are embedded; more, and CIFAR-10, come from
    $GVLIB_DATA, the cache or the network (`sources.genuine`).

    Args:
        name: which set.
        n_train: how many training images; None: all that are embedded, of CIFAR-10 all.
        n_test: how many test images; None: all 10,000.
        seed: None takes the first ones, a number a random subset, in the set's order;
            up to `n_train` = 10,000 it is drawn from the embedded images.
        device: where to put them; "auto" takes CUDA where present.
        normalize: standardize the pixels.

    Returns two Datasets with x (n, channels, height, width) float32 and y (n,) int64.

    Raises ValueError for an unknown set or device, a number of images that the set does
    not have, or a file that is not genuine; OSError where files cannot be had.

    >>> train, test = load("mnist", n_train=500, device="cpu")
    >>> train.x.shape, len(test)
    (torch.Size([500, 1, 28, 28]), 10000)
    """
    source, target = find(name), _device(device)
    wanted = {"train": n_train, "test": n_test}
    for split, n in wanted.items():
        _check_count(source, split, n)
    if seed is not None:
        _generator(seed)
    full = n_train is not None and n_train > source.embedded.get("train", 0)

    def one(split: str) -> Dataset:
        images, labels = read(name, split, full=full)
        chosen = _choose(len(labels), wanted[split], seed)
        x = _scale(images[chosen], source, normalize)
        y = torch.from_numpy(labels[chosen].astype(np.int64))
        return Dataset(x, y, None, f"{name} {split}", source.classes).to(target)

    if full or not source.embedded:  # one after another: at most one progress bar
        return one("train"), one("test")
    with ThreadPoolExecutor(2) as pool:  # xz decodes outside of Python's lock
        train, test = pool.map(one, ("train", "test"))
    return train, test


def _check_count(source: Source, split: str, n: int | None) -> None:
    size = source.sizes[split]
    if n is not None and not 1 <= _whole(n, f"n_{split}") <= size:
        raise ValueError(
            f"n_{split} is {n}, expected 1 to {size}: there are {size:,} {split} images"
        )


def _choose(size: int, n: int | None, seed: int | None) -> slice | np.ndarray:
    if n is None or seed is None:
        return slice(n)
    return torch.randperm(size, generator=_generator(seed))[:n].sort().values.numpy()


def _scale(images: np.ndarray, source: Source, normalize: bool) -> torch.Tensor:
    """Pixels by a table of the 256 values there are: exact in float64, then rounded."""
    x = np.empty(images.shape, np.float32)
    levels = np.arange(256) / 255
    for channel, (mean, std) in enumerate(zip(source.mean, source.std, strict=True)):
        table = (levels - mean) / std if normalize else levels
        x[:, channel] = table.astype(np.float32)[images[:, channel]]
    return torch.from_numpy(x)


# ----------------------------------------------------------- spoiled labels and images


def corrupt_labels(
    y: torch.Tensor,
    fraction: float,
    n_classes: int,
    *,
    seed: int,
    allow_true: bool = True,
) -> torch.Tensor:
    """Labels of which each, with probability `fraction`, is drawn anew uniformly.

    y'_i = u_i where b_i = 1, else y_i; b_i ~ Bernoulli(fraction), u_i uniform on the
    classes (Zhang et al. 2017, section 2, "partially corrupted labels"). Drawn once:
    keep the result for the whole training. With one seed a larger fraction corrupts the
    same labels, to the same classes, and more.

    Args:
        y: labels of any shape, int64.
        fraction: from 0 to 1.
        n_classes: how many classes there are.
        seed: of the draw.
        allow_true: whether a draw may equal the true class, as in the paper: then about
            fraction * (1 - 1 / n_classes) of the labels change, else `fraction`.

    Returns labels like y, on its device.

    Raises TypeError for labels that are not int64; ValueError for a fraction outside
    [0, 1], labels out of range, no labels, or one class where it must differ.

    >>> y = torch.arange(5)
    >>> bool((corrupt_labels(y, 1.0, 5, seed=0, allow_true=False) == y).any())
    False
    """
    if not 0 <= fraction <= 1:  # also refuses NaN
        raise ValueError(f"fraction of corrupted labels is {fraction}, expected 0 to 1")
    if y.dtype != torch.int64:
        raise TypeError(f"y is {y.dtype}, expected int64 class numbers; use y.long()")
    if y.numel() == 0:
        raise ValueError("there are no labels to corrupt: y is empty")
    if _whole(n_classes, "n_classes") < 2 and not allow_true:
        raise ValueError("with one class no label can differ from the true one")
    _check_labels(y, n_classes, "y")
    random = _generator(seed)
    chosen = torch.rand(y.shape, generator=random, dtype=torch.float64) < fraction
    if allow_true:
        drawn = torch.randint(n_classes, y.shape, generator=random)
    else:
        step = torch.randint(1, n_classes, y.shape, generator=random)
        drawn = (y.cpu() + step) % n_classes
    return torch.where(chosen.to(y.device), drawn.to(y.device), y)


def pixel_permutation(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A random order of the pixels of images of `shape`, (pixels,) int64 on the CPU.

    Args:
        shape: of one image: (channels, height, width), (height, width) or (features,).
        seed: of the draw.

    >>> sorted(pixel_permutation((3, 2, 2), seed=0).tolist())
    [0, 1, 2, 3]
    """
    return torch.randperm(math.prod(tuple(shape)[-2:]), generator=_generator(seed))


def permute_pixels(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Images whose pixel j is pixel order[j] of the given one; its channels go along.

    Args:
        x: (n, channels, height, width), (n, height, width) or (n, features).
        order: (pixels,), each pixel once; `pixel_permutation` draws one.

    Raises ValueError for an order that does not fit the images.

    >>> permute_pixels(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([2, 0, 1]))
    tensor([[7., 5., 6.]])
    """
    flat = _flat_pixels(x)
    pixels = flat.shape[-1]
    if order.shape != (pixels,) or order.sort().values.tolist() != list(range(pixels)):
        raise ValueError(
            f"order has shape {tuple(order.shape)}, expected each of the {pixels} "
            "pixels once; pixel_permutation(x.shape[1:], seed) draws one"
        )
    return flat[..., order.to(x.device)].reshape(x.shape)


def _flat_pixels(x: torch.Tensor) -> torch.Tensor:
    """Images as (n, channels, pixels); each of plain features is a pixel."""
    if x.ndim not in (2, 3, 4) or x.numel() == 0:
        raise ValueError(
            f"images have shape {tuple(x.shape)}, expected (n, channels, height, "
            "width), (n, height, width) or (n, features), and at least one of them"
        )
    return x.reshape(len(x), x.shape[1] if x.ndim == 4 else 1, -1)


def shuffle_pixels(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Images with their pixels in one random order, the same for all of them.

    Zhang et al. 2017, section 2, "shuffled pixels". Training and test images get the
    same order from the same seed. Shapes and errors as `permute_pixels`.
    """
    _flat_pixels(x)
    return permute_pixels(x, pixel_permutation(x.shape[1:], seed))


def random_pixels(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Images with their pixels in a random order, another for each image.

    Zhang et al. 2017, section 2, "random pixels". Take different seeds for training and
    test images. Shapes and errors as `permute_pixels`.
    """
    random, flat = _generator(seed), _flat_pixels(x)
    parts = []
    for part in flat.split(2048):  # 60,000 orders at once would take half a gigabyte
        keys = torch.rand(len(part), 1, part.shape[-1], generator=random)
        order = keys.argsort(dim=-1, stable=True).expand(part.shape)
        parts.append(part.gather(-1, order.to(x.device)))
    return torch.cat(parts).reshape(x.shape)


def gaussian_images(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Images of independent Gaussian pixels with the mean and variance of those given.

    z ~ N(m_c, s_c^2) for every pixel of channel c, with the mean m_c and the variance
    s_c^2 over all images and pixels of that channel (Zhang et al. 2017, section 2,
    "Gaussian"). Take different seeds for training and test images. Shapes and errors as
    `permute_pixels`.
    """
    flat = _flat_pixels(x).cpu()  # so that a GPU's order of summation changes nothing
    std, mean = torch.std_mean(flat, dim=(0, 2), correction=0, keepdim=True)
    noise = torch.randn(flat.shape, generator=_generator(seed), dtype=x.dtype)
    return noise.mul_(std).add_(mean).reshape(x.shape).to(x.device)


# --------------------------------------------------------------------------- made sets


def two_spirals(
    n: int, *, noise: float = 0.02, turns: float = 5 / 3, seed: int
) -> Dataset:
    """Two arms of a spiral that wind around one another, one of each class.

    x = +-r (cos t, sin t) + noise e, with r = sqrt(u), t = 2 pi turns r, u uniform on
    [0, 1], e ~ N(0, I); the sign is the class. The outer ends have radius 1, the arms
    are 1 / (2 turns) apart. Huang et al. 2019 wind theirs by 600 degrees, the default.

    Args:
        n: how many points, half of each class.
        noise: standard deviation of the noise, in units of the outer radius.
        turns: how often an arm winds around the centre.
        seed: of the draw.

    Returns a Dataset with x (n, 2) float32 and y (n,), the classes in turn.

    Raises ValueError for fewer than two points, turns that are not above 0, or a noise
    that is negative or not finite.

    >>> two_spirals(4, noise=0.0, turns=1, seed=0).y.tolist()
    [0, 1, 0, 1]
    """
    if not 0 < turns < math.inf:
        raise ValueError(f"turns is {turns}, expected a finite number above 0")
    random, y = _generator(seed), _alternate(n)
    r = torch.rand(n, generator=random, dtype=torch.float64).sqrt()
    t = 2 * math.pi * turns * r
    x = torch.stack([r * t.cos(), r * t.sin()], 1) * (1 - 2 * y)[:, None]
    return _made(x, y, noise, random, "two spirals", ("first arm", "second arm"))


def moons(n: int, *, noise: float = 0.1, seed: int) -> Dataset:
    """Two half circles of radius 1 that reach into one another, one of each class.

    x = (cos t, sin t) or (1 - cos t, 1/2 - sin t), plus noise e; t uniform on [0, pi],
    e ~ N(0, I): the set that scikit-learn calls make_moons, with random t. Arguments,
    result and errors as `two_spirals`.

    >>> moons(6, seed=0).x.shape
    torch.Size([6, 2])
    """
    random, y = _generator(seed), _alternate(n)
    t = math.pi * torch.rand(n, generator=random, dtype=torch.float64)
    x = torch.stack([t.cos(), t.sin()], 1) * (1 - 2 * y)[:, None]
    x = x + y[:, None] * torch.tensor([1.0, 0.5], dtype=torch.float64)
    return _made(x, y, noise, random, "moons", ("upper moon", "lower moon"))


def circles(n: int, *, gap: float = 0.5, noise: float = 0.0, seed: int) -> Dataset:
    """Two concentric circles: class 0 on radius 1 - gap, class 1 on radius 1.

    x = r (cos t, sin t) + noise e, t uniform on [0, 2 pi], e ~ N(0, I). A small gap
    leaves only a narrow margin between the classes (Huang et al. 2019).

    Args:
        n: how many points, half of each class.
        gap: distance of the circles, above 0 and below 1.
        noise: standard deviation of the noise.
        seed: of the draw.

    Returns a Dataset with x (n, 2) float32 and y (n,), the classes in turn.

    Raises ValueError for fewer than two points, a gap outside (0, 1), or a noise that
    is negative or not finite.

    >>> circles(2, gap=0.25, seed=0).x.norm(dim=1)
    tensor([0.7500, 1.0000])
    """
    if not 0 < gap < 1:
        raise ValueError(f"gap is {gap}, expected a number above 0 and below 1")
    random, y = _generator(seed), _alternate(n)
    t = 2 * math.pi * torch.rand(n, generator=random, dtype=torch.float64)
    r = 1 - gap * (1 - y)
    x = torch.stack([r * t.cos(), r * t.sin()], 1)
    return _made(x, y, noise, random, "circles", ("inner circle", "outer circle"))


def _alternate(n: int) -> torch.Tensor:
    if _whole(n, "n") < 2:
        raise ValueError(f"n is {n}, expected at least 2 points, one of each class")
    return torch.arange(n) % 2


def _made(
    x: torch.Tensor,
    y: torch.Tensor,
    noise: float,
    random: torch.Generator,
    name: str,
    classes: tuple[str, str],
) -> Dataset:
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise is {noise}, expected a finite number of 0 or more")
    x = x + noise * torch.randn(x.shape, generator=random, dtype=torch.float64)
    return Dataset(x.float(), y, name=name, classes=classes)
