"""The endings of output files, what each can hold, and how an output path is understood."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from sora_cli.errors import SoraError

Kind = Literal["video", "image", "frames"]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format and what it can hold; `max_side` in pixels, `max_rate` in frames per second.

    `max_rate` is where two frames would share a timestamp of the format's clock.
    """

    name: str
    moving: bool
    audio: bool
    alpha: bool
    lossless: bool
    max_side: int
    max_rate: int | None = None


_MP4 = Format("mp4", moving=True, audio=True, alpha=False, lossless=False, max_side=16384)
_MOV = Format("mov", moving=True, audio=True, alpha=False, lossless=False, max_side=16384)
_WEBM = Format("webm", moving=True, audio=True, alpha=False, lossless=False, max_side=16384, max_rate=1000)
_MKV = Format("mkv", moving=True, audio=True, alpha=False, lossless=True, max_side=32768, max_rate=1000)
_GIF = Format("gif", moving=True, audio=False, alpha=True, lossless=False, max_side=65535, max_rate=100)
_WEBP = Format("webp", moving=True, audio=False, alpha=True, lossless=False, max_side=16383, max_rate=1000)
_PNG = Format("png", moving=False, audio=False, alpha=True, lossless=True, max_side=65535)
_JPG = Format("jpg", moving=False, audio=False, alpha=False, lossless=False, max_side=65500)

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        ".mp4": _MP4,
        ".mov": _MOV,
        ".webm": _WEBM,
        ".mkv": _MKV,
        ".gif": _GIF,
        ".png": _PNG,
        ".jpg": _JPG,
        ".jpeg": _JPG,
        ".webp": _WEBP,
    }
)

_STILL_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_NUMBER = re.compile(r"%(0[1-9])?d")
_MAX_NAME_BYTES = 255
MIN_SIDE = 16


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """Where `frames` frames go and as what; for a sequence `path` is the pattern."""

    path: Path
    format: Format
    kind: Kind
    frames: int

    @property
    def folder(self) -> Path:
        """The folder that holds the file or the numbered files."""
        return self.path.parent

    def file(self, index: int) -> Path:
        """The file that holds frame `index`, counted from 0."""
        return numbered(self.path, index) if self.kind == "frames" else self.path

    def files(self) -> Iterator[Path]:
        """Every file that the output consists of, in order."""
        return (self.file(index) for index in range(self.frames if self.kind == "frames" else 1))


def plan_output(path: str | Path, frames: int) -> OutputPlan:
    """Reads an output path; looks at the text alone, never at the disk.

    Raises SoraError: unsupported_format for an unknown ending, bad_usage for a folder, a malformed `%d`
    pattern, or several frames in a file that holds one.
    """
    if is_folder_text(path):
        raise SoraError("bad_usage", f"{path}: names a folder, not a file", f"try {Path(path) / 'video.mp4'}")
    path = Path(path)
    form = format_of(path)
    if frames < 1:
        raise SoraError("bad_usage", f"{path}: {frames} frames", "ask for 1 or more")
    for part in path.parts:
        if "\0" in part or len(os.fsencode(part)) > _MAX_NAME_BYTES:
            raise SoraError("bad_usage", f"{part[:40]}...: not a possible file name", "choose a shorter, plain one")
    if path.suffix.lower() in _STILL_ENDINGS and "%" in path.name:
        check_pattern(path)
        return OutputPlan(path, form, "frames", frames)
    if frames > 1 and not form.moving:
        better = path.with_name(f"{path.stem}-%04d{path.suffix}")
        raise SoraError(
            "bad_usage",
            f"{path}: holds one frame, not {frames}",
            f"try {better}, {path.with_suffix('.mp4').name} or one frame",
        )
    still = frames == 1 and form in (_PNG, _JPG, _WEBP, _GIF)
    return OutputPlan(path, form, "image" if still else "video", frames)


def format_of(path: Path) -> Format:
    """The format that the ending of `path` stands for. Raises SoraError unsupported_format."""
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        named = f"the ending {path.suffix}" if path.suffix else "no ending"
        raise SoraError("unsupported_format", f"{path}: {named} is not a format", f"use one of {' '.join(FORMATS)}")
    return form


def is_folder_text(path: str | Path) -> bool:
    """Whether `path` is written as a folder: it ends in a separator, or is `.` or `..`."""
    text = str(path)
    return text.endswith(("/", os.sep)) or Path(text).name in ("", "..")


def is_pattern(path: Path) -> bool:
    """Whether the name holds exactly one number, `%d` or `%01d` to `%09d`, and ends as a picture does."""
    rest, numbers = _NUMBER.subn("", path.name.replace("%%", ""))
    return numbers == 1 and "%" not in rest and path.suffix.lower() in _STILL_ENDINGS


def check_pattern(path: Path) -> None:
    """Raises SoraError bad_usage unless `is_pattern`."""
    if not is_pattern(path):
        raise SoraError(
            "bad_usage",
            f"{path}: a numbered sequence has one %d or %04d in its name",
            f"try {path.with_name('%04d' + path.suffix)}, and %% for a percent sign",
        )


def numbered(pattern: Path, index: int) -> Path:
    """File `index` of a sequence, for a path that `is_pattern`."""
    return pattern.with_name(pattern.name % index)


def check_limits(form: Format, width: int, height: int, fps: Fraction) -> None:
    """Raises SoraError unsupported_format for a picture or a rate that `form` can't hold."""
    if not all(MIN_SIDE <= side <= form.max_side for side in (width, height)):
        raise SoraError(
            "unsupported_format",
            f"{width}x{height}: a side of .{form.name} is {MIN_SIDE} to {form.max_side} pixels",
            "choose another --size or format",
        )
    if fps <= 0:
        raise SoraError("bad_usage", f"{fps} frames a second", "ask for a rate above 0")
    if form.max_rate is not None and fps > form.max_rate:
        raise SoraError(
            "unsupported_format",
            f"{fps} frames a second: .{form.name} holds at most {form.max_rate}",
            "choose a lower --fps, or .mp4",
        )
