"""Tables as strict JSON and back, exactly: dtypes, NaN and infinities survive.

What `gvlib.sweeps` keeps a job's result as; no pickle is ever read.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

__all__ = [
    "assemble",
    "digest",
    "dump",
    "pack",
    "records",
    "short",
    "unpack",
]


def to_json(value: Any) -> Any:
    """`value` as strict JSON; NaN and infinities, which JSON lacks, are tagged."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or value is pd.NA:
        return None
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    raise TypeError(f"{short(value)} of type {type(value).__name__}")


def from_json(stored: Any, sequence: type = list) -> Any:
    """The inverse of `to_json`.

    >>> from_json(to_json([1, float("-inf"), "a", None]))
    [1, -inf, 'a', None]
    """
    if isinstance(stored, dict):
        return float(stored["float"])
    if isinstance(stored, list):
        return sequence(from_json(entry, sequence) for entry in stored)
    return stored


def short(value: object) -> str:
    """repr(value), cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def dump(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of `dump(value)`."""
    return hashlib.sha256(dump(value).encode()).hexdigest()


def _pack_column(column: pd.Series) -> dict:
    """One column with its dtype; exact for numbers, text, None and lists of them."""
    dtype, name = column.dtype, column.name
    plain = isinstance(dtype, np.dtype)
    if plain and dtype.kind == "f" and dtype.itemsize <= 8:
        values = [v if math.isfinite(v) else repr(v) for v in column.tolist()]
    elif plain and dtype.kind in "biu":
        values = column.tolist()
    elif (
        (plain and dtype.kind == "O")
        or pd.api.types.is_string_dtype(dtype)
        or (not plain and dtype.kind in "biuf")
    ):
        try:
            values = [to_json(value) for value in column.tolist()]
        except TypeError as error:
            raise TypeError(
                f"column {name!r} of the result holds {error}; return numbers, text, "
                "true/false, None, or lists of these"
            ) from None
    else:
        raise TypeError(
            f"column {name!r} of the result has the dtype {dtype}; turn it into "
            "numbers, text or true/false first, e.g. with .astype(str)"
        )
    return {"name": name, "dtype": str(dtype), "values": values}


def _unpack_column(packed: dict) -> pd.Series:
    """The inverse of `_pack_column`."""
    name, dtype, values = packed["name"], packed["dtype"], packed["values"]
    if re.fullmatch(r"float(16|32|64)", dtype):
        return pd.Series(np.array([float(v) for v in values], dtype=dtype), name=name)
    if re.fullmatch(r"bool|u?int\d+", dtype):
        return pd.Series(np.array(values, dtype=dtype), name=name)
    return pd.Series([from_json(v) for v in values], dtype=dtype, name=name)


def pack(frame: pd.DataFrame) -> dict:
    """Records as JSON: number of rows, and columns with their dtypes."""
    return {
        "rows": len(frame),
        "columns": [_pack_column(frame[name]) for name in frame.columns],
    }


def unpack(packed: dict) -> pd.DataFrame:
    """The inverse of `pack`.

    >>> unpack(pack(pd.DataFrame({"loss": [0.5, float("nan")], "epoch": [0, 1]})))
       loss  epoch
    0   0.5      0
    1   NaN      1
    """
    columns = {c["name"]: _unpack_column(c) for c in packed["columns"]}
    if any(len(column) != packed["rows"] for column in columns.values()):
        raise ValueError(f"a stored table of {packed['rows']} rows has other columns")
    return pd.DataFrame(columns, index=range(packed["rows"]))


def records(result: object) -> pd.DataFrame:
    """What a job returned, as a frame: one row, or one row an entry of its lists."""
    if not isinstance(result, pd.DataFrame | Mapping):
        result = getattr(result, "records", result)  # gvlib.Runs
    if isinstance(result, pd.DataFrame):
        named = [name for name in result.index.names if name is not None]
        frame = result.reset_index(level=named) if named else result
        frame = frame.reset_index(drop=True)
    elif isinstance(result, Mapping):
        frame = _rows(result)
    else:
        raise TypeError(
            f"the function returned {short(result)} of type {type(result).__name__}; "
            'return a dict such as {"loss": 0.1} or a pandas frame of records'
        )
    if not all(isinstance(name, str) for name in frame.columns):
        raise TypeError(f"result columns are {list(frame.columns)}; name each by text")
    if not frame.columns.is_unique:
        raise ValueError(f"result columns {list(frame.columns)} are not unique")
    return frame


def _rows(result: Mapping) -> pd.DataFrame:
    """A dict of numbers (one row) and equally long lists (a row an entry)."""
    if not result:
        raise ValueError('the function returned {}; return values, e.g. {"loss": 0.1}')
    columns = {}
    for name, value in result.items():
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray) and value.ndim != 1:
            value = value.tolist()  # 0-d: a number; 2-d: a list in each row
        columns[name] = list(value) if isinstance(value, tuple) else value
    lengths = {
        n: len(v) for n, v in columns.items() if isinstance(v, list | np.ndarray)
    }
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"the lists of the result differ in length: {lengths}; they become the "
            "rows of one table, so give them one length"
        )
    rows = max(lengths.values(), default=1)
    return pd.DataFrame(
        {n: v if n in lengths else [v] * rows for n, v in columns.items()},
        index=range(rows),
    )


def without_setting(
    frame: pd.DataFrame, setting: dict, names: Sequence[str]
) -> pd.DataFrame:
    """`frame` less the columns that repeat the setting; any other clash is refused."""
    repeated = [name for name in frame.columns if name in names]
    for name in repeated:
        value = setting.get(name)
        if not all(v == value for v in frame[name].tolist()):
            raise ValueError(
                f"the result has a column {name!r} that differs from the setting's "
                f"{name}={value!r}; rename one of them"
            )
    return frame.drop(columns=repeated)


def _join(pieces: list[pd.Series]) -> pd.Series:
    """One column out of the jobs' pieces; where dtypes differ, the one that holds all.

    A piece of None only counts as missing numbers where the others are numbers.
    """
    dtypes = {piece.dtype for piece in pieces}
    if len(dtypes) > 1:
        solid = [p for p in pieces if p.dtype != object or p.notna().any()]
        kinds = {p.dtype for p in solid}
        numeric = kinds and all(
            isinstance(d, np.dtype) and d.kind in "iuf" for d in kinds
        )
        target = np.result_type(*kinds) if numeric else np.dtype(object)
        if numeric and len(solid) < len(pieces):
            target = np.result_type(target, np.float64)  # None becomes NaN
        pieces = [piece.astype(target) for piece in pieces]
    return pd.concat(pieces, ignore_index=True)


def assemble(
    settings: list[dict], frames: list[pd.DataFrame], names: Sequence[str]
) -> pd.DataFrame:
    """One tidy frame: each job's rows behind its setting, in the settings' order.

    `names` are the settings' columns, there also where no job has finished.
    """
    left = pd.DataFrame(
        {name: pd.Series([s.get(name) for s in settings]) for name in names}
    )
    lengths = [len(frame) for frame in frames]
    left = left.iloc[np.repeat(np.arange(len(frames)), lengths)].reset_index(drop=True)
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    right = {}
    for name in dict.fromkeys(name for frame in filled for name in frame.columns):
        absent = {len(f): pd.Series([None] * len(f), dtype=object) for f in filled}
        right[name] = _join([f.get(name, absent[len(f)]) for f in filled])
    return pd.concat([left, pd.DataFrame(right, index=left.index)], axis=1)
