"""Whether a file ends where its container says that it does.

FFmpeg reads a file that was cut short up to the cut and calls that its end. Three families of containers state
their length, so a cut shows before anything is decoded; in the others it shows, if at all, in the last frame.
"""

import os
from typing import BinaryIO

from sora_cli.errors import SoraError

# ISO/IEC 14496-12: a size in 32 bits, the type; size 1 means 64 bits more, size 0 up to the end.
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"uuid"})
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_RIFF_UNSAID = frozenset({0, 0xFFFFFFFF})


def check_whole(file: BinaryIO) -> None:
    """Raises SoraError bad_input for a file that its container says is longer; leaves the position at 0."""
    have = os.fstat(file.fileno()).st_size
    said = _stated_length(file, have)
    file.seek(0)
    if said > have:
        missing = f"{said - have} of {said} bytes are missing"
        raise SoraError("bad_input", f"{file.name}: is cut short ({missing})", "give the whole file")


def _stated_length(file: BinaryIO, have: int) -> int:
    """Where the last element begins that is in the file, plus its length; 0 where nothing is stated."""
    file.seek(0)
    head = file.read(8)
    if head[4:8] in _BOXES:
        return _end_of_boxes(file, have)
    if head[:4] == _EBML:
        return _end_of_segment(file)
    if head[:4] == b"RIFF":
        length = int.from_bytes(head[4:8], "little")
        return 0 if length in _RIFF_UNSAID else 8 + length
    return 0


def _end_of_boxes(file: BinaryIO, have: int) -> int:
    """The end of the last box of an ISO file (mp4, mov)."""
    position = 0
    while position + 8 <= have:
        file.seek(position)
        size = int.from_bytes(file.read(4), "big")
        is_box = file.read(4) in _BOXES or position == 0
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if not is_box and position + size > have:
            return position  # bytes after the last box, of whatever kind
        if size < 8:
            return have
        position += size
    return position


def _end_of_segment(file: BinaryIO) -> int:
    """The end of Matroska's segment; RFC 8794, 4: a length's first byte tells how many there are."""
    file.seek(4)
    length, _ = _variable_integer(file)
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    length, unknown = _variable_integer(file)
    return 0 if unknown else file.tell() + length


def _variable_integer(file: BinaryIO) -> tuple[int, bool]:
    """The value, and whether it is the one that stands for an unknown length."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, True
    count = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(count - 1), "big") - (1 << 7 * count)
    return value, value == (1 << 7 * count) - 1
