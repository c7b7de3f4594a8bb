"""A safetensors header is believed only where it is right."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from sora_weights.errors import WeightsError
from sora_weights.header import ITEM_BYTES, MAX_HEADER_BYTES, read_header

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
WHOLE = save(TENSORS)


def file_of(header: object, data_bytes: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_bytes)


def tensor(start: int, end: int, shape: object = (2,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


BROKEN = {
    "empty": (b"", "cut off"),
    "shorter than a length": (b"\0" * 7, "cut off"),
    "header longer than the file": (struct.pack("<Q", 100) + b"{}", "cut off"),
    "length of all ones": (b"\xff" * 8 + b"{}", "cut off"),
    "data cut off": (WHOLE[:-1], "outside the file's 29 bytes"),
    "cut off in the header": (WHOLE[:40], "cut off"),
    "bytes left over": (WHOLE + b"\0", "1 bytes at its end"),
    "a pickle inside": (b"\x80\x02}q\x00." * 9, "cut off"),
    "not JSON": (file_of(b"{not json}"), "not JSON"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "not JSON"),
    "nested without end": (file_of(b"[" * 100_000), "not JSON"),
    "a number without end": (file_of(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
    "a list": (file_of([]), "not a JSON object"),
    "a key twice": (file_of(b'{"a": 1, "a": 2}'), "'a' is there twice"),
    "a tensor that is a number": (file_of({"a": 7}), "key a is not described"),
    "no shape": (file_of({"a": {"dtype": "F32", "data_offsets": [0, 0]}}), "key a is not described"),
    "unknown type": (file_of({"a": tensor(0, 8, dtype="F128")}, 8), "key a has the unknown type 'F128'"),
    "type that is a list": (file_of({"a": tensor(0, 8, dtype=["F32"])}, 8), "key a has the unknown type"),
    "negative side": (file_of({"a": tensor(0, 8, (-1, -2))}, 8), "key a has an impossible shape"),
    "side that is true": (file_of({"a": tensor(0, 4, (True,))}, 4), "key a has an impossible shape"),
    "fractional side": (file_of({"a": tensor(0, 8, (2.0,))}, 8), "key a has an impossible shape"),
    "too many axes": (file_of({"a": tensor(0, 4, (1,) * 99)}, 4), "key a has an impossible shape"),
    "a side of 2^62": (file_of({"a": tensor(0, 8, (2**62, 4))}, 8), "key a has an impossible shape"),
    "a product beyond 64 bits": (file_of({"a": tensor(0, 0, (2**40, 2**40))}), "key a takes 0 bytes"),
    "negative offset": (file_of({"a": tensor(-8, 0)}, 8), "key a lies outside"),
    "end before start": (file_of({"a": tensor(8, 0)}, 8), "key a lies outside"),
    "end beyond the data": (file_of({"a": tensor(0, 8)}, 7), "key a lies outside"),
    "three offsets": (file_of({"a": {**tensor(0, 8), "data_offsets": [0, 4, 8]}}, 8), "key a lies outside"),
    "fewer bytes than the shape": (
        file_of({"a": tensor(0, 4)}, 4),
        "key a takes 4 bytes where F32 [2] takes 8",
    ),
    "overlap": (file_of({"a": tensor(0, 8), "b": tensor(4, 12)}, 12), "key b overlaps"),
    "the same bytes twice": (file_of({"a": tensor(0, 8), "b": tensor(0, 8)}, 8), "key b overlaps"),
    "a hole": (file_of({"a": tensor(0, 8), "b": tensor(9, 17)}, 17), "key b leaves a hole"),
}


@pytest.mark.parametrize(("content", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_file_is_refused_naming_file_and_problem(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as refused:
        read_header(path)
    assert refused.value.code == "bad_weights"
    assert refused.value.message.startswith(f"{path}: ")
    assert problem in refused.value.message
    assert refused.value.hint


def test_huge_header_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES + 100)
    with pytest.raises(WeightsError, match="too large to be real"):
        read_header(path)


def test_folder_or_nothing_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.safetensors"):
        with pytest.raises(WeightsError, match="no such file"):
            read_header(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_header_lists_what_safetensors_wrote(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(save({"x": torch.zeros(2, 0, 3, dtype=dtype), "y": torch.ones((), dtype=dtype)}))
    entries = read_header(path)
    assert {name: entry.shape for name, entry in entries.items()} == {"x": (2, 0, 3), "y": ()}
    assert ITEM_BYTES[entries["y"].dtype] == dtype.itemsize


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8))
def test_scribbled_file_is_read_or_refused_but_never_crashes(tmp_path: Path, at: int, bytes_: bytes) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes((WHOLE[:at] + bytes_ + WHOLE[at + len(bytes_) :])[: max(len(WHOLE), at)])
    try:
        entries = read_header(path)
    except WeightsError as error:
        assert error.code == "bad_weights"
    else:
        assert all(isinstance(entry.shape, tuple) for entry in entries.values())
