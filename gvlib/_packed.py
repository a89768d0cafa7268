"""Arrays in a page's HTML, as small as a reader can't tell from the whole."""

import base64
import math
import zlib

import numpy as np

MANTISSA = 23  # bits of a float32's
BITS = 13  # kept of them: an error below 0.007 %, finer than the digits that are shown


def rounded(values: np.ndarray, bits: int = BITS) -> np.ndarray:
    """float32 values (...) rounded to `bits` bits after the leading one.

    A relative error of at most 2**-(bits + 1). Infinities and NaN stay what they are.

    >>> rounded(np.array([1 / 3, np.inf]), bits=2).tolist()
    [0.3125, inf]
    """
    values = np.ascontiguousarray(values, "<f4")
    spare = MANTISSA - bits
    whole = values.view("<u4").astype("<u8")  # in 64 bits no carry is lost
    near = (whole + (1 << (spare - 1))) >> spare << spare
    return np.where(np.isfinite(values), near, whole).astype("<u4").view("<f4")


def pack(values: np.ndarray, *, bits: int = BITS, step: float = 0.0) -> str:
    """Base64 of float32 values, rounded and deflated; `static/host.js` undoes it.

    Each value is rounded to the nearest multiple of `step`, if given, then as `rounded`
    does. The first bytes of all values come first, then the second ones, ...: so alike
    bytes lie together.
    """
    values = np.asarray(values, "<f4").ravel()
    if step:
        values = (np.round(values / step) * step).astype("<f4")
    planes = rounded(values, bits).view(np.uint8).reshape(-1, 4).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def unpack(text: str) -> np.ndarray:
    """What a page reads out of `pack(values)`: float32 (n,).

    >>> unpack(pack([1.0, -0.5, 1 / 3], bits=11)).tolist()
    [1.0, -0.5, 0.33337...]
    """
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.ascontiguousarray(planes.reshape(4, -1).T).view("<f4")[:, 0]


def fine_step(low: float, high: float, levels: int = 2048) -> float:
    """The power of two next below 1/levels of a range: steps that no eye can see.

    >>> fine_step(0, 1)
    0.00048828125
    """
    return 2.0 ** math.floor(math.log2((high - low) / levels))
