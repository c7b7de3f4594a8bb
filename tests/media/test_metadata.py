"""What a file says about its own making: identical after the round trip, harmless when hostile."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sora_cli.errors import SoraError
from sora_cli.media.formats import FORMATS
from sora_cli.media.metadata import ascii_json, exif, fits, gif_comment, parse, read_metadata
from sora_cli.media.writer import FrameWriter

Write = Callable[..., FrameWriter]
MakeFrames = Callable[[int, int, int], list[np.ndarray]]

RECORD = {
    "schema": "sora/1",
    "command": "generate",
    "request": {
        "prompt": 'une forêt 🐱 "quoted" back\\slash\nnew line\ttab \u2028 \x7f ;=#',
        "seed": 2**53,
        "fps": "30000/1001",
    },
}
OUTPUTS = ["a.mp4", "a.mov", "a.webm", "a.mkv", "a.gif", "a.webp"]
STILLS = ["a.png", "a.jpg", "a.jpeg", "a.webp", "a.gif"]


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize(("name", "count"), [*((name, 3) for name in OUTPUTS), *((name, 1) for name in STILLS)])
def test_record_reads_back_identically(
    tmp_path: Path, name: str, count: int, escaped: bool, make_frames: MakeFrames, write: Write
) -> None:
    text = json.dumps(RECORD, ensure_ascii=escaped)
    assert write(tmp_path / name, make_frames(32, 24, count), metadata=text).notes == []
    assert read_metadata(tmp_path / name) == RECORD


@pytest.mark.parametrize("name", [*OUTPUTS, "a-%d.png"])
def test_long_record_survives(tmp_path: Path, name: str, make_frames: MakeFrames, write: Write) -> None:
    record = RECORD | {"long": "é🐱" * 20_000}
    write(tmp_path / name, make_frames(32, 24, 2), metadata=json.dumps(record, ensure_ascii=False))
    file = tmp_path / (name % 0 if "%" in name else name)
    assert read_metadata(file) == record


def test_sequence_holds_it_in_its_first_picture(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    write(tmp_path / "%d.png", make_frames(16, 16, 2), metadata=json.dumps(RECORD))
    assert read_metadata(tmp_path / "0.png") == RECORD
    assert read_metadata(tmp_path / "%d.png") == RECORD
    assert read_metadata(tmp_path / "1.png") is None


@pytest.mark.parametrize("name", [*OUTPUTS, "a.png", "a.jpg"])
def test_no_metadata_means_none(tmp_path: Path, name: str, make_frames: MakeFrames, write: Write) -> None:
    count = 1 if name in STILLS else 2
    write(tmp_path / name, make_frames(16, 16, count))
    assert read_metadata(tmp_path / name) is None


def test_record_too_long_for_jpeg_is_noted(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    text = json.dumps(RECORD | {"long": "x" * 70_000})
    assert "too long" in write(tmp_path / "a.jpg", make_frames(16, 16, 1), metadata=text).notes[0]
    assert read_metadata(tmp_path / "a.jpg") is None
    assert fits(text, FORMATS[".png"])
    assert not fits(text, FORMATS[".jpg"])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_other_programs_find_it_in_the_comment_tag(
    tmp_path: Path, name: str, make_frames: MakeFrames, write: Write
) -> None:
    text = json.dumps(RECORD, ensure_ascii=False)
    write(tmp_path / name, make_frames(16, 16, 2), metadata=text)
    with av.open(str(tmp_path / name)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert tags["comment"] == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "Made with GIMP",
        "{}",
        "[1, 2]",
        '{"schema": 7}',
        '{"schema": "other/1"}',
        '"sora/1"',
        '["sora/1"]',
        "{broken",
    ],
)
def test_comments_of_others_are_not_ours(text: str | None) -> None:
    assert parse(text, "a.mp4") is None


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": "sora/1",',
        '{"schema": "sora/1"} trailing',
        '{"schema": "sora/1", "seed": NaN}',
        '{"schema": "sora/1", "seed": Infinity}',
        '{"schema": "sora/2"}',
        '{"schema": "sora/1", "n": ' + "9" * 10_000 + "}",
        '{"schema": "sora/1", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"schema": "sora/1", "long": "' + "x" * (1 << 20) + '"}',
    ],
    ids=["cut", "trailing", "nan", "infinity", "newer", "huge number", "deep", "long"],
)
def test_damaged_records_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(SoraError) as refusal:
        parse(text, "a.mp4")
    assert refusal.value.code == "bad_input"
    assert str(refusal.value).startswith("a.mp4: ")
    assert refusal.value.hint
    assert len(str(refusal.value)) < 200


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A 1x1 PNG with extra chunks before its pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    whole = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" * 4)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in whole)


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * (64 << 20))),
        (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * (64 << 20))),
        (b"zTXt", b"Comment\0\0not zlib"),
        (b"iTXt", b"Comment\0\1"),
        (b"iTXt", b"Comment\0\0\0\0\0\xff\xfe\xff"),
    ],
    ids=["bomb", "bomb in iTXt", "no zlib", "cut", "no utf-8"],
)
def test_hostile_text_chunks_do_no_harm(tmp_path: Path, chunk: tuple[bytes, bytes]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_with(chunk))
    try:
        assert read_metadata(path) is None
    except SoraError as refusal:
        assert refusal.code == "bad_input"


def test_text_chunk_of_any_case_and_kind_is_read(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("comment", json.dumps(RECORD))
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", pnginfo=info)
    assert read_metadata(tmp_path / "a.png") == RECORD


def test_gif_comment_is_blocks_of_255() -> None:
    block = gif_comment("x" * 256)
    assert block == b"\x21\xfe\xff" + b"x" * 255 + b"\x01x\x00"


def test_escapes_change_bytes_and_not_meaning() -> None:
    text = json.dumps(RECORD, ensure_ascii=False)
    assert ascii_json(text).isascii()
    assert json.loads(ascii_json(text)) == RECORD


def test_exif_is_a_tiff_block() -> None:
    assert exif("{}")[:4] in (b"II*\0", b"MM\0*")
