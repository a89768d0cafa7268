"""The files of the real data sets: where they come from, what they hold, who checks.

A file is taken from the package (embedded), from $GVLIB_DATA, from the cache or from
its public address, in this order, and used only where its SHA-256 is the right one.
"""

import functools
import gzip
import hashlib
import math
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

import numpy as np

from ._display import resource, static_build

__all__ = [
    "SOURCES",
    "Source",
    "cache_folder",
    "find",
    "genuine",
    "read",
    "read_cifar",
    "read_idx",
]


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
_EMBEDDED = {"train": 10_000, "test": 10_000}
_CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_THINGS = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"

SOURCES = {
    "fashion-mnist": Source(
        folder="fashion-mnist",
        shape=(1, 28, 28),
        sizes={"train": 60_000, "test": 10_000},
        files=_IDX,
        classes=tuple(_CLOTHES.split(",")),
        mean=(0.286041,),
        std=(0.353024,),
        addresses=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
            "master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        archive="{}.gz",
        embedded=_EMBEDDED,
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
        embedded=_EMBEDDED,
    ),
    "cifar-10": Source(
        folder="cifar-10-batches-bin",
        shape=(3, 32, 32),
        sizes={"train": 50_000, "test": 10_000},
        files={
            "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        classes=tuple(_THINGS.split(",")),
        mean=(0.491400, 0.482158, 0.446531),
        std=(0.247032, 0.243485, 0.261588),
        addresses=("https://www.cs.toronto.edu/~kriz/",),
        archive="cifar-10-binary.tar.gz",
    ),
}


def find(name: str) -> Source:
    """The entry of SOURCES called `name`; ValueError with the names there are.

    >>> find("mnist").shape
    (1, 28, 28)
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(SOURCES)}")
    return SOURCES[name]


# ----------------------------------------------------------------- from files to arrays


def read(name: str, split: str, *, full: bool = False) -> tuple[np.ndarray, np.ndarray]:
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
    source = find(name)
    if split not in source.files:
        raise ValueError(f"unknown split {split!r}; expected 'train' or 'test'")
    embedded = source.embedded.get(split, 0)
    whole = embedded == source.sizes[split]
    return _decoded(name, split, not embedded or (full and not whole))


@functools.cache
def _decoded(name: str, split: str, full: bool) -> tuple[np.ndarray, np.ndarray]:
    source = SOURCES[name]
    if full:
        raw = [genuine(name, file) for file in source.files[split]]
    else:
        raw = [_embedded(f"{source.folder}/{file}") for file in _EMBEDDED_IDX[split]]
    if source.archive == "{}.gz":
        images, labels = (read_idx(file) for file in raw)
    else:
        pairs = [read_cifar(batch) for batch in raw]
        images, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    images = images.reshape(-1, *source.shape)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def read_idx(raw: bytes) -> np.ndarray:
    """The array in an IDX file of bytes, the format of MNIST.

    Two zero bytes, the type (8: unsigned byte), the number of axes, their lengths as
    big-endian 32-bit numbers, then the entries (LeCun, Cortes, Burges: the MNIST page).

    Raises ValueError for another kind of file, or one not as long as it says.

    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7])).tolist()
    [5, 7]
    """
    if raw[:3] != b"\0\0\x08" or len(raw) < 4 or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"not an IDX file of bytes: it begins with {raw[:4]!r}")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4).tolist()
    start = 4 + 4 * raw[3]
    if len(raw) != start + math.prod(shape):
        raise ValueError(
            f"an IDX file of shape {tuple(shape)} has {start + math.prod(shape):,} "
            f"bytes, this one {len(raw):,}: it is cut short or not whole"
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


# ---------------------------------------------------------------- where files are found


@functools.cache
def _sums() -> dict[str, str]:
    """SHA-256 by path, from the file that `sha256sum -c` reads as well."""
    lines = (resource("data") / "SHA256SUMS").read_text("utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {path: digest for digest, path in pairs}


def _is_genuine(raw: bytes, path: str) -> bool:
    return hashlib.sha256(raw).hexdigest() == _sums()[path]


def _embedded(path: str) -> bytes:
    try:
        import lzma  # not above: some self-built Pythons lack it
    except ImportError as error:
        raise ImportError(
            "this Python lacks the module lzma, which reads the embedded data: install "
            "liblzma (Debian: liblzma-dev) and build Python anew, or use the system's"
        ) from error
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

    return Path(os.environ.get("GVLIB_CACHE") or pooch.os_cache("gvlib")).expanduser()


def genuine(name: str, file: str) -> bytes:
    """The content of one full data file, checked by its SHA-256.

    It is taken from $GVLIB_DATA/<folder>/<file>, else from the cache, else downloaded
    from its public address, checked (the archive and what it decodes to) and kept in
    the cache. A file of yours that is wrong is named and left alone; one of the cache
    is deleted.

    Args:
        name: "fashion-mnist", "mnist" or "cifar-10".
        file: one of `SOURCES[name].files`.

    Raises ValueError for a file that is not genuine, FileNotFoundError for a GVLIB_DATA
    that is no folder, ConnectionError without a network, another OSError where the
    cache cannot be written.
    """
    source = find(name)
    own = _own_file(f"{source.folder}/{file}")
    cached = cache_folder() / source.folder / file
    for place, forget in ((own, None), (cached, _delete)):
        if place is None or not place.is_file():
            continue
        raw = place.read_bytes()
        if _is_genuine(raw, f"{source.folder}/{file}"):
            return raw
        advice = forget(place) if forget else "Replace it, or unset GVLIB_DATA"
        raise ValueError(
            f"{place} ({len(raw):,} bytes) is not the genuine file but cut short or "
            f"altered. {advice}"
        )
    return _download(name, file)


def _own_file(path: str) -> Path | None:
    own = os.environ.get("GVLIB_DATA")
    if not own:
        return None
    folder = Path(own).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"GVLIB_DATA is {own!r}, which is no folder; set it to the folder that "
            f"holds {path}, or unset it"
        )
    return folder / path


def _delete(cached: Path) -> str:
    try:
        cached.unlink()
    except OSError as error:
        return f"It could not be deleted ({error.strerror}): delete it and run again"
    return "It is deleted now: run this again to download it anew"


# ----------------------------------------------------------------------------- download

_PART = ".download-"
_STALE = 24 * 3600  # seconds; no download that still runs is older than a day


def _download(name: str, file: str) -> bytes:
    """Fetch, check, unpack and check again; then move whole files into the cache."""
    source = SOURCES[name]
    cache = _writable(cache_folder() / source.folder)
    found = {}
    with tempfile.TemporaryDirectory(dir=cache, prefix=_PART) as work:
        archive, whole = Path(work) / "archive", Path(work) / "whole"
        _fetch(name, file, archive)
        for member, raw in _unpack(archive, source, file):
            if not _is_genuine(raw, f"{source.folder}/{member}"):
                raise ValueError(f"{member} of {name} is not genuine; it is not kept")
            whole.write_bytes(raw)
            os.replace(whole, cache / member)
            if member == file:
                found[file] = raw
    return found[file]


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
        with suppress(FileNotFoundError):  # another process may clear up as well
            if time.time() - left.stat().st_mtime > _STALE:
                rmtree(left, ignore_errors=True)
    return cache


def _fetch(name: str, file: str, target: Path) -> None:
    """Download the archive that holds `file`, from the first address that gives it."""
    import pooch

    source = SOURCES[name]
    archive = source.archive.format(file)
    failures = []
    for address in source.addresses:
        try:
            _get(address + archive, target)
        except OSError as error:
            failures.append(f"{address}{archive}: {error}")
            continue
        if pooch.file_hash(str(target)) == _sums()[f"{source.folder}/{archive}"]:
            return
        size = target.stat().st_size
        failures.append(f"{address}{archive}: not the genuine file ({size:,} bytes)")
    raise ConnectionError(_how_to_bring(name, archive, failures))


def _get(address: str, target: Path) -> None:
    import pooch
    from tqdm import tqdm

    with tqdm(
        desc=address.rpartition("/")[2],
        total=1,  # a bar without a total is not "true" to pooch, which sets it later
        unit="B",
        unit_scale=True,
        leave=False,
        disable=static_build(),
    ) as bar:
        get = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=2**16,
            timeout=20,  # seconds of silence, not of the whole download
            headers={"Accept-Encoding": "identity"},  # the .gz itself, not unpacked
        )
        get(address, str(target), None)


def _how_to_bring(name: str, archive: str, failures: list[str]) -> str:
    source = SOURCES[name]
    lines = [f"{archive} of {name} could not be downloaded; nothing of it was kept:"]
    lines += [f"  {failure}" for failure in failures]
    if source.embedded:
        few = source.embedded["train"]
        lines.append(f"Without it: ask for n_train <= {few:,}, which is embedded.")
    files = ", ".join(file for split in source.files.values() for file in split)
    lines.append(
        f"To bring the full set yourself: put {files} into <folder>/{source.folder} "
        "and set GVLIB_DATA=<folder>."
    )
    return "\n".join(lines)


def _unpack(archive: Path, source: Source, file: str) -> Iterator[tuple[str, bytes]]:
    """The name and content of each data file in a checked archive."""
    if source.archive == "{}.gz":
        yield file, gzip.decompress(archive.read_bytes())
        return
    with tarfile.open(archive, "r:gz") as tar:
        for member in source.files["train"] + source.files["test"]:
            yield member, tar.extractfile(f"{source.folder}/{member}").read()
