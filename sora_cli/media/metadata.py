"""The one JSON object that a file carries about its own making: writing it and reading it back.

Videos hold it in the container's comment tag, PNG in an iTXt chunk, JPEG and GIF in a comment, WebP in EXIF.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sora_cli.errors import SoraError
from sora_cli.media.formats import Format, numbered
from sora_cli.media.source import is_picture, is_sequence, open_clip, open_picture, open_regular

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

MAX_BYTES = 1 << 20
_MAX_JPEG_BYTES = 65533  # a JPEG segment counts its bytes, and two for the count, in 16 bits
_SCHEMA = "sora/1"
_MARK = '"sora/'
_EXIF_IFD = 0x8769
_USER_COMMENT = 0x9286
_ASCII = b"ASCII\0\0\0"


def fits(text: str, form: Format) -> bool:
    """Whether a file of this format can carry `text`, and `read_metadata` would take it."""
    return len(ascii_json(text)) <= (_MAX_JPEG_BYTES if form.name == "jpg" else MAX_BYTES)


def ascii_json(text: str) -> bytes:
    r"""The same JSON with \u escapes, for places whose encoding readers disagree about."""
    return "".join(c if c.isascii() else _escape(c) for c in text).encode("ascii")


def png_text(text: str) -> "PngInfo":
    """What Pillow puts into a PNG: an iTXt chunk named Comment, in UTF-8."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("Comment", text)
    return info


def exif(text: str) -> bytes:
    """An EXIF block, without the `Exif` prefix of JPEG, whose UserComment is `text`."""
    from PIL import Image

    block = Image.Exif()
    block.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _ASCII + ascii_json(text)
    return block.tobytes().removeprefix(b"Exif\0\0")


def gif_comment(text: str) -> bytes:
    """A GIF89a comment extension: 0x21 0xFE, blocks of at most 255 bytes, 0x00."""
    data = ascii_json(text)
    blocks = (data[start : start + 255] for start in range(0, len(data), 255))
    return b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def read_metadata(path: str | Path) -> dict[str, Any] | None:
    """What `sora` wrote into the file about its making; None for a file of someone else.

    A pattern such as `frames/%04d.png` stands for the first file of the sequence.

    Raises SoraError: missing_input or bad_input for what is no readable video or picture, bad_input for our
    metadata when it is damaged or newer than this program.
    """
    path = numbered(Path(path), 0) if is_sequence(path) else path
    with open_regular(path) as file:
        text = _picture_text(file) if is_picture(file) else _clip_text(file)
    return parse(text, path)


def parse(text: str | None, path: str | Path) -> dict[str, Any] | None:
    """The JSON object of a comment of the file `path`, or None where the comment isn't ours.

    Raises SoraError bad_input for a comment of ours that is damaged, too long or of a newer schema.
    """
    if text is None or _MARK not in text[:MAX_BYTES]:
        return None
    if len(text) > MAX_BYTES:
        raise SoraError("bad_input", f"{path}: its metadata is {len(text)} characters long", "use another file")
    try:
        found: Any = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise SoraError("bad_input", f"{path}: its metadata is damaged", "use another file, or --no-metadata") from None
    if not isinstance(found, dict):
        return None
    schema = found.get("schema")
    if not isinstance(schema, str) or not schema.startswith("sora/"):
        return None
    if schema != _SCHEMA:
        raise SoraError("bad_input", f"{path}: its metadata is {schema[:20]}, not {_SCHEMA}", "update sora")
    return found


def comment_tag(tags: Mapping[Any, Any]) -> Any:
    """The comment among a file's tags, whose case differs between formats; None without one."""
    return next((value for name, value in tags.items() if str(name).lower() == "comment"), None)


def picture_comment(image: "Image.Image") -> str | None:
    """The text of an opened picture that `png_text`, `exif`, a JPEG or a GIF comment carries."""
    if image.format == "WEBP":
        value = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
        return _text(value.removeprefix(_ASCII)) if isinstance(value, bytes) else None
    return _text(comment_tag(image.info))


def _picture_text(file: BinaryIO) -> str | None:
    with open_picture(file) as image:
        return picture_comment(image)


def _clip_text(file: BinaryIO) -> str | None:
    with open_clip(file) as container:
        return _text(comment_tag(container.metadata))


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, str) else None


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
