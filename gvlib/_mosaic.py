"""Many images as one array of pixels, for `gvlib.plot.images`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["count_titles", "image_grid", "mosaic", "to_unit"]


def image_grid(x: Any, columns: int | None) -> tuple[np.ndarray, int]:
    """Images as (rows, columns, H, W, 1 or 3), padded by NaN, and how many they are."""
    x = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, dtype=float)
    shape = x.shape
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim not in (4, 5) or x.shape[-3] not in (1, 3) or 0 in x.shape:
        raise ValueError(
            f"images of shape {shape}; expected (n, H, W), (n, 1 or 3, H, W) or "
            "(rows, columns, 1 or 3, H, W), none of them 0"
        )
    if not np.isfinite(x).all():
        raise ValueError("an image holds NaN or infinity; nothing can stand for it")
    x = np.moveaxis(x, -3, -1)
    if x.ndim == 5:
        return x, x.shape[0] * x.shape[1]
    count = len(x)
    columns = min(columns or 8, count)
    rows = -(-count // columns)
    padding = np.full((rows * columns - count, *x.shape[1:]), np.nan)
    return np.concatenate([x, padding]).reshape(rows, columns, *x.shape[1:]), count


def count_titles(name: str, titles: Sequence[str] | None, expected: int) -> None:
    if titles is not None and len(titles) != expected:
        raise ValueError(f"{name} has {len(titles)} entries; expected {expected}")


def to_unit(
    grid: np.ndarray, limits: tuple[float, float] | None, each_row: bool
) -> np.ndarray:
    """Values in [0, 1], cut at the limits."""
    if limits is None:
        axes = tuple(range(1, 5)) if each_row else None
        low, high = np.nanquantile(grid, [0.005, 0.995], axis=axes, keepdims=True)
    else:
        low, high = limits
    span = np.where(np.equal(high, low), 1.0, np.subtract(high, low))
    return np.clip((grid - low) / span, 0, 1)


def mosaic(grid: np.ndarray, gap: int, head: int, count: int) -> np.ndarray:
    """All images in one uint8 RGBA array; what lies between them is transparent."""
    rows, columns, tall, wide, _ = grid.shape
    down, across = tall + gap + head, wide + gap
    canvas = np.zeros((rows * down - gap - head, columns * across - gap, 4), np.uint8)
    for k in range(count):
        i, j = divmod(k, columns)
        cell = canvas[i * down : i * down + tall, j * across : j * across + wide]
        cell[..., :3] = np.rint(255 * grid[i, j])
        cell[..., 3] = 255
    return canvas
