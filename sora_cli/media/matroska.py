"""The shape of a pixel in Matroska and WebM, put into a finished file.

FFmpeg's muxer takes it from a field of the stream that PyAV doesn't reach, and writes none. What is missing, two
numbers, fits into the padding that the muxer leaves at the head of the file, so nothing behind the head moves.
Source: RFC 8794 (EBML) for lengths and checksums, RFC 9559 (Matroska) for the elements.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

_HEAD_BYTES = 1 << 16
_SEGMENT, _SEEK_HEAD, _SEEK, _SEEK_POSITION = 0x18538067, 0x114D9B74, 0x4DBB, 0x53AC
_VOID, _CRC, _TRACKS, _TRACK, _VIDEO = 0xEC, 0xBF, 0x1654AE6B, 0xAE, 0xE0
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2


@dataclass(frozen=True, slots=True)
class _Element:
    """One element: where it begins, where its data does, and where it ends, in bytes."""

    name: int
    start: int
    data: int
    end: int


def set_pixel_aspect(path: Path, width: int, height: int, aspect: Fraction) -> None:
    """Tells players to show pixels of `width` x `height` in the shape `aspect`, width over height.

    The size to show is the larger one, in whole pixels. Raises OSError, and ValueError for a file that isn't laid
    out as FFmpeg does.
    """
    shown = max(width, round(width * aspect)), max(height, round(height / aspect))
    with path.open("rb+") as file:
        head = file.read(_HEAD_BYTES)
        segment = next(element for element in _elements(head, 0, len(head)) if element.name == _SEGMENT)
        level = {element.name: element for element in _elements(head, segment.data, len(head))}
        if not {_SEEK_HEAD, _VOID, _TRACKS} <= set(level) or level[_TRACKS].end > len(head):
            raise ValueError(f"{path} is not laid out as expected")
        tracks = _rebuilt(head, level[_TRACKS], shown)
        _put_head(file, head, segment, level, tracks)


def _put_head(file: BinaryIO, head: bytes, segment: _Element, level: dict[int, _Element], tracks: bytes) -> None:
    """Writes `tracks` so that it ends where the old one did; what precedes it moves into the padding."""
    old, void, seek_head = level[_TRACKS], level[_VOID], level[_SEEK_HEAD]
    grown = len(tracks) - (old.end - old.start)
    padding = void.end - void.start - grown
    if padding < 9 or not seek_head.end <= void.start < old.start:
        raise ValueError("no room for the shape of a pixel")
    between = head[void.end : old.start]
    moved = range(void.end - segment.data, old.start - segment.data + 1)
    file.seek(seek_head.start)
    file.write(_shifted(head, seek_head, moved, grown))
    file.write(head[seek_head.end : void.start] + _element(_VOID, bytes(padding - 9), width=8))
    file.write(between + tracks)


def _rebuilt(head: bytes, tracks: _Element, shown: tuple[int, int]) -> bytes:
    """The tracks with the size to show in the one that is video."""
    return _element(_TRACKS, _checked(_replaced(head, tracks, _TRACK, lambda track: _video_track(head, track, shown))))


def _video_track(head: bytes, track: _Element, shown: tuple[int, int]) -> bytes:
    return _element(_TRACK, _replaced(head, track, _VIDEO, lambda video: _video(head, video, shown)))


def _video(head: bytes, video: _Element, shown: tuple[int, int]) -> bytes:
    sizes = _number(_DISPLAY_WIDTH, shown[0]) + _number(_DISPLAY_HEIGHT, shown[1])
    left_out = (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
    kept = (head[part.start : part.end] for part in _children(head, video) if part.name not in left_out)
    return _element(_VIDEO, b"".join(kept) + sizes)


def _replaced(head: bytes, parent: _Element, name: int, build: Callable[[_Element], bytes]) -> bytes:
    """The data of `parent` without its checksum, each child of that name built anew."""
    children = (child for child in _children(head, parent) if child.name != _CRC)
    return b"".join(build(child) if child.name == name else head[child.start : child.end] for child in children)


def _shifted(head: bytes, seek_head: _Element, moved: range, by: int) -> bytes:
    """The table of contents, with entries for what stood at `moved` (counted from the segment) `by` bytes earlier."""
    data = bytearray(head[seek_head.start : seek_head.end])
    for seek in _children(head, seek_head):
        for part in _children(head, seek) if seek.name == _SEEK else ():
            position = int.from_bytes(head[part.data : part.end], "big")
            if part.name == _SEEK_POSITION and position in moved:
                place = slice(part.data - seek_head.start, part.end - seek_head.start)
                data[place] = (position - by).to_bytes(part.end - part.data, "big")
    first = next(_children(head, seek_head))
    if first.name == _CRC:
        rest = bytes(data[first.end - seek_head.start :])
        data[first.data - seek_head.start : first.end - seek_head.start] = _checksum(rest)
    return bytes(data)


def _checked(data: bytes) -> bytes:
    """Data behind its checksum."""
    return _element(_CRC, _checksum(data)) + data


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def _number(name: int, value: int) -> bytes:
    return _element(name, value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _element(name: int, data: bytes, width: int = 0) -> bytes:
    """An element; the length is told in `width` bytes, or in as few as will do."""
    count = width or next(size for size in range(1, 9) if len(data) < (1 << 7 * size) - 1)
    length = (len(data) | 1 << 7 * count).to_bytes(count, "big")
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + length + data


def _children(head: bytes, parent: _Element) -> Iterator[_Element]:
    return _elements(head, parent.data, parent.end)


def _elements(head: bytes, start: int, end: int) -> Iterator[_Element]:
    """The elements one after the other, as far as they begin within `head`."""
    while start < end - 1:
        name_end = start + 9 - head[start].bit_length()
        if name_end >= len(head):
            return
        data = name_end + 9 - head[name_end].bit_length()
        length = int.from_bytes(head[name_end:data], "big") - (1 << 7 * (data - name_end))
        yield _Element(int.from_bytes(head[start:name_end], "big"), start, data, data + length)
        start = data + length
