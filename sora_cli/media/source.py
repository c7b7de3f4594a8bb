"""Opening files of strangers: regular files only, one file each, no protocol, no playlist."""

import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sora_cli.errors import SoraError
from sora_cli.media.formats import is_pattern

if TYPE_CHECKING:
    from av.container import InputContainer
    from PIL import Image

_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,ivf,nut,mxf,yuv4mpegpipe,"
    "h264,hevc,m4v,obu,dv,wav,mp3,flac,aac,aiff"
)
# A playlist can't name a second file: its demuxer is not in the list, and no protocol is.
_CLOSED = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"}
_PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
_REMEDY = "give a video or a picture"


def is_sequence(path: str | Path) -> bool:
    """Whether `path` names a numbered sequence: a pattern, and no file of that very name."""
    return is_pattern(Path(path)) and not Path(path).is_file()


@contextmanager
def open_regular(path: str | Path) -> Iterator[BinaryIO]:
    """The bytes of an existing regular file, whatever its name looks like.

    Raises SoraError missing_input where there is none, bad_input for a folder, a device, an empty
    file, or one that may not be read.
    """
    with _opened(path) as file:
        yield file


def _opened(path: str | Path) -> BinaryIO:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise SoraError("bad_input", f"{path}: is {what}", _REMEDY)
        if status.st_size == 0:
            raise SoraError("bad_input", f"{path}: is empty", _REMEDY)
        return Path(path).open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise SoraError("missing_input", f"{path}: no such file", "check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a possible name"
        raise SoraError("bad_input", f"{path}: can't be read ({reason})", "check the path") from None


def is_picture(file: BinaryIO) -> bool:
    """Whether the first bytes are those of a picture, an animated one included; leaves the position at 0."""
    head = file.read(12)
    file.seek(0)
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")) or (
        head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    )


@contextmanager
def open_picture(file: BinaryIO) -> Iterator["Image.Image"]:
    """A picture opened with Pillow; errors inside the block are about this file too.

    Raises SoraError bad_input for a damaged file and for more pixels than Pillow thinks sane.
    """
    from PIL import Image

    broken = (OSError, ValueError, SyntaxError, EOFError, LookupError, struct.error)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_PICTURES) as image:
                yield image
    except (*broken, Image.DecompressionBombError) as error:
        raise unreadable(file, error) from None


@contextmanager
def open_clip(file: BinaryIO) -> Iterator["InputContainer"]:
    """A video opened with FFmpeg, which sees the bytes of this one file and nothing else.

    Raises SoraError bad_input for a damaged file, also where that shows inside the block.
    """
    import av

    try:
        with av.open(file, mode="r", options=_CLOSED, metadata_errors="replace") as container:
            yield container
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise unreadable(file, error) from None


def unreadable(file: BinaryIO, error: Exception) -> SoraError:
    """The refusal of a file that is no video and no picture, or a damaged one."""
    reason = getattr(error, "strerror", None) or type(error).__name__
    return SoraError("bad_input", f"{file.name}: is not a readable video or picture ({reason})", _REMEDY)
