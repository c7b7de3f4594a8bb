"""The header of a safetensors file, believed only as far as it was checked.

Format: https://github.com/huggingface/safetensors#format - eight bytes of little-endian length, that many
bytes of JSON, then the tensors' bytes without holes. A file may come from anyone: nothing in it is used
before its check.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sora_weights.errors import MissingFileError, WeightsError

ITEM_BYTES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
FLOATING = frozenset({"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"})
MAX_HEADER_BYTES = 32 * 2**20
MAX_AXES = 8
MAX_SIZE = 2**48
REMEDY = "download or copy the file again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: key, element type as safetensors spells it, shape, first byte in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of `path` by key, in the order of their bytes, without reading any of them.

    Raises WeightsError("bad_weights") naming the file, and the key where there is one, for anything that the
    format does not allow.
    """
    text, data_start, data_bytes = _header_text(path)
    listed = _object(path, text)
    listed.pop("__metadata__", None)
    spans = [_span(path, key, facts, data_bytes) for key, facts in listed.items()]
    spans.sort(key=lambda span: (span.start, span.end))
    _check_no_holes(path, spans, data_bytes)
    return {s.key: Entry(s.key, s.dtype, s.shape, path, data_start + s.start) for s in spans}


@dataclass(frozen=True, slots=True)
class _Span:
    key: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def bad(path: Path, problem: str, hint: str = REMEDY) -> WeightsError:
    """The error for a file that can't be used."""
    return WeightsError("bad_weights", f"{path}: {problem}", hint)


def _header_text(path: Path) -> tuple[bytes, int, int]:
    """The header's bytes, where the data starts, and how many bytes of data there are."""
    if not path.is_file():
        raise MissingFileError("bad_weights", f"{path}: there is no such file", REMEDY)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise bad(path, f"it is cut off: {size} bytes, but its header alone should take {8 + length}")
            if length > MAX_HEADER_BYTES:
                raise bad(path, f"its header of {length} bytes is too large to be real")
            return file.read(length), 8 + length, size - 8 - length
    except OSError as error:
        raise bad(path, f"it can't be read ({error.strerror})", "check its permissions") from error


def _object(path: Path, text: bytes) -> dict[str, Any]:
    try:
        listed = json.loads(text.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise bad(path, f"its header is not JSON ({str(error)[:80]}); is it a safetensors file?") from error
    if not isinstance(listed, dict):
        raise bad(path, "its header is not a JSON object")
    return listed


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:60]!r} is there twice")
        found[key] = value
    return found


def _span(path: Path, key: str, facts: Any, data_bytes: int) -> _Span:
    """One checked entry of the header; offsets count from the start of the data."""
    if not isinstance(facts, dict) or facts.keys() != {"dtype", "shape", "data_offsets"}:
        raise bad(path, f"key {key[:200]} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise bad(
            path,
            f"key {key[:200]} has the unknown type {str(dtype)[:40]!r}",
            "convert it to BF16, F16 or F32",
        )
    if not _are_sizes(shape) or len(shape) > MAX_AXES:
        raise bad(path, f"key {key[:200]} has an impossible shape")
    if not _are_sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= data_bytes:
        raise bad(path, f"key {key[:200]} lies outside the file's {data_bytes} bytes of data")
    needed = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != needed:
        raise bad(
            path,
            f"key {key[:200]} takes {offsets[1] - offsets[0]} bytes where {dtype} {shape} takes {needed}",
        )
    return _Span(key, dtype, tuple(shape), *offsets)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= MAX_SIZE for value in values)


def _check_no_holes(path: Path, spans: list[_Span], data_bytes: int) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    reached = 0
    for span in spans:
        if span.start != reached:
            problem = "overlaps another" if span.start < reached else "leaves a hole before it"
            raise bad(path, f"key {span.key[:200]} {problem}")
        reached = span.end
    if reached != data_bytes:
        raise bad(path, f"{data_bytes - reached} bytes at its end belong to no key")
