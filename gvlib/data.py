"""Real and made data sets as tensors on the device, and ways to spoil them.

Everything drawn at random is drawn on the CPU from an explicit seed and moved afterwards,
so the same seed gives the same numbers on every device.
"""

import functools
import gzip
import hashlib
import lzma
import math
import operator
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch

from ._display import resource

__all__ = [
    # sets of examples
    "Dataset",
    "SOURCES",
    "cache_folder",
    "device",
    "genuine",
    "load",
    "read",
    "read_cifar",
    "read_idx",
    # spoiled labels and images
    "corrupt_labels",
    "gaussian_images",
    "permute_pixels",
    "pixel_permutation",
    "random_pixels",
    "shuffle_pixels",
    # made sets
    "circles",
    "moons",
    "two_spirals",
]


def device(name: str | torch.device = "auto") -> torch.device:
    """The torch device called `name`; "auto" is CUDA where present, else the CPU.

    Raises ValueError for an unknown device or one that this machine does not have.

    >>> device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(_unknown_device(name)) from error
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if found.type not in present:
        raise ValueError(_unknown_device(name))
    if (found.index or 0) >= present[found.type]:
        raise ValueError(
            f"device {str(name)!r} is not on this machine, which has "
            f"{present[found.type]} of type {found.type!r}; "
            "'auto' takes a GPU where there is one and the CPU otherwise"
        )
    return found


_device = device  # functions that have an argument `device` call it by this name


def _unknown_device(name: object) -> str:
    return f"unknown device {str(name)!r}; expected 'auto', 'cpu', 'cuda' or 'cuda:1'"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples and their labels on one device, shared by all members or one set each.

    Args:
        x: (n, ...) or, own examples for each member, (members, n, ...); floating point.
        y: (n,) or (members, n) class numbers, int64, below `len(classes)` if named.
            Examples are a member's own where y is 2-D and x.shape[:2] == y.shape.
        weights: None or (n,) or (members, n); one finite weight >= 0 an example.
        name: what the set is called in tables and errors.
        classes: the names of the classes, in the order of their numbers.

    Raises TypeError for a wrong kind of tensor, ValueError for shapes that do not fit
    together, no examples, or labels out of range.

    >>> ds = Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]), classes=("a", "b"))
    >>> len(ds), ds.n_classes, ds[:2].y.tolist()
    (3, 2, [0, 1])
    """

    x: torch.Tensor
    y: torch.Tensor
    weights: torch.Tensor | None = None
    name: str = "data"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        self._check_kinds()
        self._check_shapes()
        self._check_values()

    def __len__(self) -> int:
        """The number of examples n (of one member)."""
        return self.y.shape[-1]

    @property
    def own_x(self) -> bool:
        """True where each member has its own examples: x is (members, n, ...)."""
        return self.y.ndim == 2 and self.x.shape[:2] == self.y.shape

    @property
    def members(self) -> int | None:
        """How many members the set is for; None where all share labels and weights."""
        for tensor in (self.y, self.weights):
            if tensor is not None and tensor.ndim == 2:
                return tensor.shape[0]
        return None

    @property
    def n_classes(self) -> int:
        """The number of classes: of names, or the largest label + 1 without names."""
        return len(self.classes) or int(self.y.max()) + 1

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.x.device

    def to(self, device: str | torch.device) -> "Dataset":
        """The same set on `device` ("auto", "cpu", "cuda", ...)."""
        target = _device(device)
        weights = None if self.weights is None else self.weights.to(target)
        return replace(self, x=self.x.to(target), y=self.y.to(target), weights=weights)

    def replace(self, **changes: object) -> "Dataset":
        """A copy with x, y, weights, name or classes replaced, checked like a new one."""
        return replace(self, **changes)

    def __getitem__(self, index: slice | torch.Tensor) -> "Dataset":
        """Examples by a slice, a 1-D tensor of positions or a 1-D mask, along n."""
        if not isinstance(index, slice):
            index = self._positions(index)
        weights = self.weights
        return replace(
            self,
            x=self.x[:, index] if self.own_x else self.x[index],
            y=self.y[..., index],
            weights=None if weights is None else weights[..., index],
        )

    def _positions(self, index: torch.Tensor) -> torch.Tensor:
        n = len(self)
        if isinstance(index, int):
            raise TypeError(f"a Dataset is indexed by slices: use [{index}:{index + 1}]")
        index = torch.as_tensor(index, device=self.y.device)
        if index.ndim != 1 or index.is_floating_point():
            raise TypeError(
                "a Dataset is indexed by a slice or a 1-D tensor of integers or "
                f"booleans, not by {index.ndim}-D {index.dtype}"
            )
        if index.dtype == torch.bool:
            if len(index) != n:
                raise IndexError(f"a mask of {len(index)} for {n} examples of {self.name}")
        elif len(index) and not -n <= int(index.min()) <= int(index.max()) < n:
            raise IndexError(
                f"positions {int(index.min())} to {int(index.max())} asked of "
                f"{self.name}, which has {n} examples"
            )
        return index

    def _check_kinds(self) -> None:
        for key, tensor in (("x", self.x), ("y", self.y), ("weights", self.weights)):
            if tensor is None and key == "weights":
                continue
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(
                    f"{key} of {self.name} is a {type(tensor).__name__}, expected a "
                    "torch tensor; torch.as_tensor makes one of an array or list"
                )
            if key == "y" and tensor.dtype != torch.int64:
                raise TypeError(
                    f"y of {self.name} is {tensor.dtype}, expected int64 class numbers; "
                    "use y.long()"
                )
            if key != "y" and not tensor.is_floating_point():
                raise TypeError(
                    f"{key} of {self.name} is {tensor.dtype}, expected float32; "
                    f"use {key}.float()"
                )
            if tensor.device != self.x.device:
                raise ValueError(
                    f"{key} of {self.name} is on {tensor.device}, x on {self.x.device}; "
                    "put both on one device"
                )

    def _check_shapes(self) -> None:
        x, y, weights = self.x, self.y, self.weights
        if y.ndim not in (1, 2):
            raise ValueError(
                f"y of {self.name} has shape {tuple(y.shape)}, expected (n,) or (members, n)"
            )
        if y.numel() == 0:
            raise ValueError(f"{self.name} is empty: y has shape {tuple(y.shape)}")
        if x.ndim < 1 or not (self.own_x or x.shape[0] == len(self)):
            raise ValueError(
                f"x of {self.name} has shape {tuple(x.shape)} and y {tuple(y.shape)}; "
                f"expected x with {len(self)} examples along its first axis, or "
                "(members, n, ...) together with y (members, n)"
            )
        if weights is None:
            return
        fits = weights.ndim in (1, 2) and weights.shape[-1] == len(self)
        if not fits or (weights.ndim == y.ndim == 2 and weights.shape != y.shape):
            raise ValueError(
                f"weights of {self.name} have shape {tuple(weights.shape)} and y "
                f"{tuple(y.shape)}; expected one weight an example"
            )

    def _check_values(self) -> None:
        _check_labels(self.y, len(self.classes) or None, self.name)
        w = self.weights
        if w is not None and not bool((w.isfinite() & (w >= 0)).all()):
            raise ValueError(f"weights of {self.name} must be finite and not negative")


def _check_labels(y: torch.Tensor, n_classes: int | None, name: str) -> None:
    low, high = int(y.min()), int(y.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        expected = f"0 to {n_classes - 1}" if n_classes else "0 and more"
        raise ValueError(f"labels of {name} run from {low} to {high}, expected {expected}")


# ---------------------------------------------------------------- where sets come from


@dataclass(frozen=True)
class Source:
    """What there is to know about a real set: its files, classes and addresses."""

    folder: str
    shape: tuple[int, int, int]  # channels, height, width
    sizes: dict[str, int]  # split: examples
    files: dict[str, tuple[str, ...]]  # split: decoded files, in order
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # a channel, of the full training set scaled to [0, 1]
    std: tuple[float, ...]
    addresses: tuple[str, ...]  # tried in this order
    archive: str  # what lies at an address; "{}" stands for the decoded file's name
    embedded: dict[str, int] = field(default_factory=dict)  # split: examples


_IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_EMBEDDED_IDX = {
    "train": ("train-10k-images-idx3-ubyte", "train-10k-labels-idx1-ubyte"),
    "test": _IDX["test"],
}
_TENS = {"train": 10_000, "test": 10_000}

SOURCES = {
    "fashion-mnist": Source(
        folder="fashion-mnist",
        shape=(1, 28, 28),
        sizes={"train": 60_000, "test": 10_000},
        files=_IDX,
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        mean=(0.286041,),
        std=(0.353024,),
        addresses=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
            "master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        archive="{}.gz",
        embedded=_TENS,
    ),
    "mnist": Source(
        folder="mnist",
        shape=(1, 28, 28),
        sizes={"train": 60_000, "test": 10_000},
        files=_IDX,
        classes=tuple("0123456789"),
        mean=(0.130660,),
        std=(0.308108,),
        addresses=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        archive="{}.gz",
        embedded=_TENS,
    ),
    "cifar-10": Source(
        folder="cifar-10-batches-bin",
        shape=(3, 32, 32),
        sizes={"train": 50_000, "test": 10_000},
        files={
            "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        classes=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        mean=(0.491400, 0.482158, 0.446531),
        std=(0.247032, 0.243485, 0.261588),
        addresses=("https://www.cs.toronto.edu/~kriz/",),
        archive="cifar-10-binary.tar.gz",
    ),
}


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
    training set, or x in [0, 1] where `normalize` is false. Up to 10,000 training images
    of the first two are embedded; more, and CIFAR-10, come from $GVLIB_DATA, the cache
    or the network (`genuine`).

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
    """
    source, target = _source(name), _device(device)
    wanted = {"train": n_train, "test": n_test}
    for split, n in wanted.items():
        _check_count(name, split, n)
    full = n_train is not None and n_train > source.embedded.get("train", 0)

    def one(split: str) -> Dataset:
        images, labels = read(name, split, full=full and split == "train")
        chosen = _choose(len(labels), wanted[split], seed)
        x = _standardize(images[chosen], source, normalize)
        y = torch.from_numpy(labels[chosen].astype(np.int64))
        return Dataset(x, y, None, f"{name} {split}", source.classes).to(target)

    if full or not source.embedded:  # one after another: at most one progress bar
        return one("train"), one("test")
    with ThreadPoolExecutor(2) as pool:  # xz decodes outside of Python's lock
        train, test = pool.map(one, ("train", "test"))
    return train, test


def read(
    name: str, split: str, *, full: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a set as numpy arrays, kept for the life of the process.

    Args:
        name: "fashion-mnist", "mnist" or "cifar-10".
        split: "train" or "test".
        full: the whole split even where a part of it is embedded.

    Returns images (n, channels, height, width) uint8 and labels (n,) uint8, read-only.

    Raises ValueError for an unknown set or split or a file that is not genuine; OSError
    where files cannot be had.

    >>> images, labels = read("mnist", "test")
    >>> images.shape, labels[:3].tolist()
    ((10000, 1, 28, 28), [7, 2, 1])
    """
    source = _source(name)
    if split not in source.files:
        raise ValueError(f"unknown split {split!r} of {name}; expected 'train' or 'test'")
    embedded = source.embedded.get(split, 0)
    return _decoded(name, split, not embedded or (full and embedded < source.sizes[split]))


@functools.cache
def _decoded(name: str, split: str, full: bool) -> tuple[np.ndarray, np.ndarray]:
    source = SOURCES[name]
    if full:
        raw = [genuine(name, file) for file in source.files[split]]
    else:
        raw = [_embedded(f"{source.folder}/{file}") for file in _EMBEDDED_IDX[split]]
    if source.folder.startswith("cifar"):
        pairs = [read_cifar(batch) for batch in raw]
        images, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    else:
        images, labels = (read_idx(file) for file in raw)
    images = images.reshape(-1, *source.shape)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def read_idx(raw: bytes) -> np.ndarray:
    """The array in an IDX file of bytes, the format of MNIST.

    Two zero bytes, the type (8: unsigned byte), the number of axes, their lengths as
    big-endian 32-bit numbers, then the entries (LeCun, Cortes and Burges, the MNIST page).

    Raises ValueError where it is another kind of file, or longer or shorter than it says.

    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7])).tolist()
    [5, 7]
    """
    if raw[:3] != b"\0\0\x08" or len(raw) < 4 or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"not an IDX file of bytes: it begins with {raw[:4]!r}")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4).astype(int)
    start = 4 + 4 * raw[3]
    if len(raw) - start != math.prod(shape.tolist()):
        raise ValueError(
            f"an IDX file of shape {tuple(shape.tolist())} must have "
            f"{start + math.prod(shape.tolist()):,} bytes, this one has {len(raw):,}"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_cifar(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and labels (n,), uint8, of one CIFAR-10 binary batch.

    Each record is a label byte and 3072 bytes: the red, the green and the blue plane
    (Krizhevsky, the CIFAR-10 page). Raises ValueError for a length that does not fit.

    >>> read_cifar(bytes(3073))[0].shape
    (1, 3, 32, 32)
    """
    if not raw or len(raw) % 3073:
        raise ValueError(
            f"a CIFAR-10 batch has 3073 bytes an image; {len(raw):,} bytes do not fit"
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(SOURCES)}")
    return SOURCES[name]


def _check_count(name: str, split: str, n: int | None) -> None:
    size = SOURCES[name].sizes[split]
    if n is not None and not 1 <= operator.index(n) <= size:
        raise ValueError(
            f"n_{split} is {n}; {name} has {size:,} {split} images, so ask for 1 to {size}"
        )


def _choose(size: int, n: int | None, seed: int | None) -> slice | np.ndarray:
    if n is None or seed is None:
        return slice(n)
    drawn = torch.randperm(size, generator=_generator(seed))[:n]
    return drawn.sort().values.numpy()


def _standardize(images: np.ndarray, source: Source, normalize: bool) -> torch.Tensor:
    """Pixels by a table of the 256 values there are: exact in float64, then rounded."""
    x = np.empty(images.shape, np.float32)
    levels = np.arange(256) / 255
    for channel, (mean, std) in enumerate(zip(source.mean, source.std, strict=True)):
        table = (levels - mean) / std if normalize else levels
        x[:, channel] = table.astype(np.float32)[images[:, channel]]
    return torch.from_numpy(x)


# ------------------------------------------------------------ files, cache and download


@functools.cache
def _sums() -> dict[str, str]:
    """SHA-256 by path, from the file that `sha256sum -c` reads as well."""
    lines = (resource("data") / "SHA256SUMS").read_text().splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {path: digest for digest, path in pairs}


def _is_genuine(raw: bytes, path: str) -> bool:
    return hashlib.sha256(raw).hexdigest() == _sums()[path]


def _embedded(path: str) -> bytes:
    file = resource("data") / f"{path.replace('/', '-')}.xz"
    advice = f"{file} is missing, cut short or altered; get this copy of gvlib anew"
    try:
        raw = lzma.decompress(file.read_bytes())
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(advice) from error
    if not _is_genuine(raw, path):
        raise ValueError(advice)
    return raw


def cache_folder() -> Path:
    """Where downloads are kept: $GVLIB_CACHE, or else the user's own cache folder."""
    import pooch

    return Path(os.environ.get("GVLIB_CACHE") or pooch.os_cache("gvlib"))


def genuine(name: str, file: str) -> bytes:
    """The content of one full data file, checked by its SHA-256.

    It is taken from $GVLIB_DATA/<folder>/<file>, else from the cache, else downloaded
    from its public address, checked (the archive and what it decodes to), and kept in
    the cache. A file of yours that is wrong is named and left alone; one of the cache
    is deleted.

    Raises ValueError for a file that is not genuine, FileNotFoundError for a $GVLIB_DATA
    that is no folder, ConnectionError without a network, OSError where the cache cannot
    be written.
    """
    path = f"{_source(name).folder}/{file}"
    own = os.environ.get("GVLIB_DATA")
    if own and not Path(own).is_dir():
        raise FileNotFoundError(
            f"GVLIB_DATA is {own!r}, which is no folder; set it to the folder that "
            f"holds {path}, or unset it"
        )
    if own and (Path(own) / path).is_file():
        raw = (Path(own) / path).read_bytes()
        if not _is_genuine(raw, path):
            raise ValueError(
                f"{Path(own) / path} ({len(raw):,} bytes) is not the genuine file: cut "
                "short or altered. Replace it, or unset GVLIB_DATA"
            )
        return raw
    cached = cache_folder() / path
    if not cached.is_file():
        return _download(name, file)
    raw = cached.read_bytes()
    if not _is_genuine(raw, path):
        cached.unlink()
        raise ValueError(
            f"{cached} ({len(raw):,} bytes) was not the genuine file: cut short or "
            "altered. It is deleted now; run this again to download it anew"
        )
    return raw


def _download(name: str, file: str) -> bytes:
    """Fetch, check, unpack and check again; then move whole files into the cache."""
    source = SOURCES[name]
    cache = _writable(cache_folder())
    with tempfile.TemporaryDirectory(dir=cache, prefix=_PART) as work:
        archive = Path(work) / "archive"
        _fetch(name, file, archive)
        wanted = None
        for member, raw in _unpack(archive, source, file):
            if not _is_genuine(raw, f"{source.folder}/{member}"):
                raise ValueError(f"{member} of {name} is not the genuine file; not kept")
            (Path(work) / "whole").write_bytes(raw)
            (cache / source.folder).mkdir(exist_ok=True)
            os.replace(Path(work) / "whole", cache / source.folder / member)
            wanted = raw if member == file else wanted
    return wanted


_PART = ".download-"
_STALE = 24 * 3600  # seconds; a download that is still running is younger than a day


def _writable(cache: Path) -> Path:
    """The cache folder, made if need be, without what a killed process left there."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise type(error)(
            f"cannot write to the cache folder {cache} ({error.strerror}); set "
            "GVLIB_CACHE to a folder that you may write to"
        ) from error
    for left in cache.glob(f"{_PART}*"):
        if time.time() - left.stat().st_mtime > _STALE:
            rmtree(left, ignore_errors=True)
    return cache


def _fetch(name: str, file: str, target: Path) -> None:
    """Download the archive that holds `file`, from the first address that gives it."""
    import pooch
    from tqdm import tqdm

    source = SOURCES[name]
    archive = source.archive.format(file)
    failures = []
    for address in source.addresses:
        with tqdm(desc=archive, unit="B", unit_scale=True, leave=False) as bar:
            get = pooch.HTTPDownloader(
                progressbar=bar,
                chunk_size=2**16,
                timeout=20,  # seconds of silence, not of the whole download
                headers={"Accept-Encoding": "identity"},  # the .gz itself, not unpacked
            )
            try:
                get(address + archive, str(target), None)
            except OSError as error:
                failures.append(f"{address}{archive}: {error}")
                continue
        if pooch.file_hash(str(target)) == _sums()[f"{source.folder}/{archive}"]:
            return
        size = target.stat().st_size
        failures.append(f"{address}{archive}: not the genuine file ({size:,} bytes)")
    raise ConnectionError(_how_to_bring(name, archive, failures))


def _how_to_bring(name: str, archive: str, failures: list[str]) -> str:
    source = SOURCES[name]
    few = source.embedded.get("train", 0)
    lines = [f"{archive} of {name} could not be downloaded, and nothing of it was kept:"]
    lines += [f"  {failure}" for failure in failures]
    if few:
        lines.append(f"Without it: ask for n_train <= {few:,}, which is embedded.")
    files = ", ".join(name for split in source.files.values() for name in split)
    lines.append(
        f"To bring the full set: put {files} into <folder>/{source.folder} and set "
        "GVLIB_DATA=<folder>."
    )
    return "\n".join(lines)


def _unpack(archive: Path, source: Source, file: str) -> Iterator[tuple[str, bytes]]:
    """The name and content of each data file in a checked archive."""
    if source.archive.endswith(".tar.gz"):
        with tarfile.open(archive, "r:gz") as tar:
            for member in source.files["train"] + source.files["test"]:
                yield member, tar.extractfile(f"{source.folder}/{member}").read()
    else:
        yield file, gzip.decompress(archive.read_bytes())


# -------------------------------------------------------------- spoiled labels and images


def _generator(seed: int) -> torch.Generator:
    """A generator of its own for each call: global random state is never touched."""
    if isinstance(seed, bool) or not 0 <= operator.index(seed) < 2**63:
        raise ValueError(f"seed is {seed!r}, expected a whole number from 0 to 2**63 - 1")
    return torch.Generator().manual_seed(operator.index(seed))


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
    classes (Zhang et al. 2017, section 2.2, "partially corrupted labels"). Drawn once:
    keep the result for the whole training. With one seed a larger fraction corrupts the
    same labels and more.

    Args:
        y: labels of any shape, int64.
        fraction: from 0 to 1.
        n_classes: how many classes there are.
        seed: of the draw.
        allow_true: whether a draw may equal the true class, as in the paper: then
            fraction * (1 - 1 / n_classes) of the labels change; else `fraction` of them.

    Returns labels like y, on its device.

    Raises ValueError for a fraction outside [0, 1], labels out of range, no labels, or
    one class of which the true one is not allowed.

    >>> corrupt_labels(torch.arange(5), 1.0, 5, seed=0, allow_true=False).eq(
    ...     torch.arange(5)).any().item()
    False
    """
    if not 0 <= fraction <= 1:  # also refuses NaN
        raise ValueError(f"fraction of corrupted labels is {fraction}, expected 0 to 1")
    if y.numel() == 0:
        raise ValueError("there are no labels to corrupt: y is empty")
    if n_classes < 2 and not allow_true:
        raise ValueError("with one class no label differs from the true one")
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
    """Images whose pixel j is pixel order[j] of the image given; channels stay together.

    Args:
        x: (n, channels, height, width), (n, height, width) or (n, features).
        order: (pixels,) for all images, or (n, pixels) with one order an image.

    Raises ValueError for an order that does not fit the images.

    >>> permute_pixels(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([2, 0, 1]))
    tensor([[7., 5., 6.]])
    """
    flat = _flat_pixels(x)
    if order.shape not in ((flat.shape[-1],), (len(x), flat.shape[-1])):
        raise ValueError(
            f"an order of shape {tuple(order.shape)} for images of "
            f"{flat.shape[-1]} pixels; pixel_permutation(x.shape[1:], seed) makes one"
        )
    order = order.to(x.device)
    if order.ndim == 1:
        return flat[..., order].reshape(x.shape)
    return flat.gather(-1, order[:, None].expand(flat.shape)).reshape(x.shape)


def _flat_pixels(x: torch.Tensor) -> torch.Tensor:
    """Images as (n, channels, pixels); features without a plane are pixels."""
    if x.ndim not in (2, 3, 4) or x.numel() == 0:
        raise ValueError(
            f"images have shape {tuple(x.shape)}, expected (n, channels, height, width), "
            "(n, height, width) or (n, features), and at least one"
        )
    return x.flatten(-2)[:, None] if x.ndim == 3 else x.reshape(
        len(x), x.shape[1] if x.ndim == 4 else 1, -1
    )


def shuffle_pixels(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Images with their pixels in one random order, the same for all of them.

    Zhang et al. 2017, section 2.2, "shuffled pixels". Training and test images get the
    same order from the same seed. Shapes and errors as `permute_pixels`.
    """
    return permute_pixels(x, pixel_permutation(x.shape[1:], seed))


def random_pixels(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Images with their pixels in a random order, another for each image.

    Zhang et al. 2017, section 2.2, "random pixels". Take different seeds for training
    and test images. Shapes and errors as `permute_pixels`.
    """
    random, pixels = _generator(seed), _flat_pixels(x[:1]).shape[-1]
    # 2,048 orders at a time: 60,000 sorted at once would take half a gigabyte.
    parts = [
        permute_pixels(
            part, torch.rand(len(part), pixels, generator=random).argsort(1, stable=True)
        )
        for part in x.split(2048)
    ]
    return torch.cat(parts)


def gaussian_images(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Images of independent Gaussian pixels with the mean and variance of those given.

    z ~ N(m_c, s_c^2) for every pixel of channel c, with the mean m_c and the variance
    s_c^2 over all images and pixels of that channel (Zhang et al. 2017, section 2.2,
    "Gaussian"). Take different seeds for training and test images. Shapes and errors as
    `permute_pixels`.
    """
    flat = _flat_pixels(x).double()
    std, mean = torch.std_mean(flat, dim=(0, 2), correction=0, keepdim=True)
    noise = torch.randn(flat.shape, generator=_generator(seed)).to(x.device)
    return (noise * std + mean).to(x.dtype).reshape(x.shape)


# ------------------------------------------------------------------------------ made sets


def two_spirals(
    n: int, *, noise: float = 0.02, turns: float = 5 / 3, seed: int
) -> Dataset:
    """Two spirals that wind into one another, one of each class; the outer end has radius 1.

    x = +-r (cos t, sin t) + noise e, with r = sqrt(u), t = 2 pi turns r, u uniform on
    [0, 1], e ~ N(0, I); the sign is the class. The arms are 1 / (2 turns) apart. The 600
    degrees of the default are those of Huang et al. 2019 (swiss roll).

    Args:
        n: how many points, half of each class.
        noise: standard deviation of the noise, in units of the outer radius.
        turns: how often an arm winds around the centre.
        seed: of the draw.

    Returns a Dataset with x (n, 2) float32 and y (n,), the classes in turn.

    >>> two_spirals(4, noise=0.0, turns=1, seed=0).y.tolist()
    [0, 1, 0, 1]
    """
    if not turns > 0:
        raise ValueError(f"turns is {turns}, expected a number above 0")
    random = _generator(seed)
    y = _alternate(n)
    r = torch.rand(n, generator=random, dtype=torch.float64).sqrt()
    t = 2 * math.pi * turns * r
    x = torch.stack([r * t.cos(), r * t.sin()], 1) * (1 - 2 * y)[:, None]
    return _made(x, y, noise, random, "two spirals", ("first arm", "second arm"))


def moons(n: int, *, noise: float = 0.1, seed: int) -> Dataset:
    """Two half circles of radius 1 that reach into one another, one of each class.

    x = (cos t, sin t) or (1 - cos t, 1/2 - sin t), plus noise e; t uniform on [0, pi],
    e ~ N(0, I): the set that scikit-learn calls make_moons. Arguments and result as
    `two_spirals`.

    >>> moons(6, seed=0).x.shape
    torch.Size([6, 2])
    """
    random = _generator(seed)
    y = _alternate(n)
    t = math.pi * torch.rand(n, generator=random, dtype=torch.float64)
    x = torch.stack([t.cos(), t.sin()], 1) * (1 - 2 * y)[:, None]
    x = x + y[:, None] * torch.tensor([1.0, 0.5], dtype=torch.float64)
    return _made(x, y, noise, random, "moons", ("upper moon", "lower moon"))


def circles(n: int, *, gap: float = 0.5, noise: float = 0.0, seed: int) -> Dataset:
    """Two concentric circles: class 0 on radius 1 - gap, class 1 on radius 1.

    x = r (cos t, sin t) + noise e, t uniform on [0, 2 pi], e ~ N(0, I). A small gap leaves
    only a narrow margin between the classes (Huang et al. 2019).

    Args:
        n: how many points, half of each class.
        gap: distance of the circles, above 0 and below 1.
        noise: standard deviation of the noise.
        seed: of the draw.

    Returns a Dataset with x (n, 2) float32 and y (n,), the classes in turn.

    >>> circles(2, gap=0.25, seed=0).x.norm(dim=1)
    tensor([0.7500, 1.0000])
    """
    if not 0 < gap < 1:
        raise ValueError(f"gap is {gap}, expected a number above 0 and below 1")
    random = _generator(seed)
    y = _alternate(n)
    t = 2 * math.pi * torch.rand(n, generator=random, dtype=torch.float64)
    r = 1 - gap * (1 - y)
    x = torch.stack([r * t.cos(), r * t.sin()], 1)
    return _made(x, y, noise, random, "circles", ("inner circle", "outer circle"))


def _alternate(n: int) -> torch.Tensor:
    if operator.index(n) < 2:
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
