"""What was asked, resolved to exact size, frames, rate and seed.

`parse_*` turn the text of one option into a value; `resolve` turns all of them into a `Request`.
All raise `SoraError("bad_usage")` with the value and the remedy.
"""

import dataclasses
import math
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sora_cli.errors import SoraError
from sora_cli.result import SCHEMA

if TYPE_CHECKING:
    from sora_weights.spec import Defaults
DEFAULT_MODEL = "diorama"
MAX_SIDE = 8192
MAX_FRAMES = 100_000
MAX_FPS = 240
MAX_STEPS = 1000
MAX_GUIDANCE = 100
MAX_SEED = 2**63 - 1
MAX_TEXT = 10_000
DEVICES = ("auto", "cpu", "cuda", "mps")
SIDES = ("forward", "backward", "both")
MODES = ("bridge", "blend")
DTYPES = ("auto", "float32", "bfloat16", "float16")

_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?|\.\d{1,9}")
_RATIO = re.compile(r"\d{1,9}/\d{1,9}")
_PIXELS = re.compile(r"(\d{1,6})x(\d{1,6})")
_LINES = re.compile(r"(\d{2,4})p")
_ASPECT = re.compile(r"(\d{1,4}):(\d{1,4})")
_MEMORY = re.compile(r"(\d{1,18}|\d{1,12}\.\d{1,6})([kmgt]?)(i?b)?")


@dataclass(frozen=True, slots=True)
class Request:
    """What defines the picture and how it is computed; pixels, frames per second, bytes.

    `frames` are those that are drawn: all of a video from words, the new ones beside a clip (on each `side` of it).
    `image` and `last` are pictures, `clip` and `other` clips; `gap` is the first and last frame to fill, `strength` how
    far drawing leaves what it starts from (0 not at all, 1 altogether), `mask` a picture that is white where to draw;
    `mode` says how clips are joined, `prompt_b` what the second one shows. A `draft` is the small picture that a
    picture of this size begins with; `composed` is the size that the draft was asked for whose final this is.
    """

    command: str
    prompt: str
    negative: str
    model: str
    width: int
    height: int
    frames: int
    fps: Fraction
    steps: int
    guidance: float
    seed: int
    device: str
    dtype: str
    memory: int | None
    draft: bool
    composed: tuple[int, int] | None = None
    image: str | None = None
    last: str | None = None
    clip: str | None = None
    other: str | None = None
    side: str | None = None
    gap: tuple[int, int] | None = None
    strength: float | None = None
    mask: str | None = None
    mode: str | None = None
    prompt_b: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The files whose frames the video knows, in the order in which films number them."""
        return tuple(path for path in (self.image, self.last, self.clip, self.other) if path is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """All files that the video is made of."""
        return self.sources if self.mask is None else (*self.sources, self.mask)

    @property
    def seconds(self) -> Fraction:
        """How long the video lasts, exactly."""
        return self.frames / self.fps

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the same request back."""
        pairs = {"gap": self.gap, "composed": self.composed}
        lists = {name: None if pair is None else list(pair) for name, pair in pairs.items()}
        return {**dataclasses.asdict(self), "fps": str(self.fps), **lists}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Request":
        """The request in `data`, which a stranger may have written: each field is checked."""
        known = {field.name: field.default is MISSING for field in fields(cls)}
        needed = {name for name, needed in known.items() if needed}
        for name in sorted((needed - set(data)) | (set(data) - set(known))):
            raise _unreadable(name, "is missing" if name in known else "is unknown")
        return cls(**{name: _FIELDS[name](name, data[name]) for name in known if name in data})


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user named, by option, environment or settings; None is not named."""

    prompt: str | None = None
    negative: str | None = None
    model: str | None = None
    size: str | None = None
    seconds: Fraction | None = None
    frames: int | None = None
    fps: Fraction | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    device: str | None = None
    dtype: str | None = None
    memory: int | None = None
    draft: bool | None = None
    image: str | None = None
    last: str | None = None


_DIRECT = (
    *("prompt", "negative", "image", "last", "model"),
    *("steps", "guidance", "seed", "device", "dtype", "memory", "draft"),
)  # wishes that become fields of the request as they are


def record(request: Request, digest: str, version: str) -> dict[str, Any]:
    """The object that a result carries in its metadata and that `--from` replays."""
    return {
        "schema": SCHEMA,
        "command": request.command,
        "request": request.to_json(),
        "model": {"name": request.model, "digest": digest},
        "version": version,
    }


def resolve(command: str, wishes: Wishes, defaults: "Defaults") -> Request:
    """`wishes` over the model's defaults; a seed that nobody named is drawn afresh."""
    base = Request(
        command=command,
        prompt="",
        negative="",
        model=DEFAULT_MODEL,
        width=defaults.width,
        height=defaults.height,
        frames=frame_count(Fraction(defaults.seconds), defaults.fps),
        fps=defaults.fps,
        steps=defaults.steps,
        guidance=defaults.guidance,
        seed=secrets.randbits(32),
        device="auto",
        dtype="auto",
        memory=None,
        draft=False,
    )
    return revise(base, wishes, defaults)


def revise(base: Request, wishes: Wishes, defaults: "Defaults") -> Request:
    """`base` with what `wishes` name; another rate alone keeps the seconds. A draft in another size is its final."""
    named: dict[str, Any] = {name: value for name in _DIRECT if (value := getattr(wishes, name)) is not None}
    fps = wishes.fps or base.fps
    width, height = (base.width, base.height) if wishes.size is None else parse_size(wishes.size, defaults)
    if wishes.draft:
        named["composed"] = None
    elif base.draft and wishes.size is not None:
        named |= {"draft": False, "composed": (base.width, base.height)}
    request = replace(base, **named, width=width, height=height, fps=fps, frames=_frames(base, wishes, fps))
    if not request.prompt.strip() and request.command == "generate":
        raise bad(f"prompt {request.prompt!r}", 'it is empty; say what to draw, as in "a cat at sunset"')
    return request


def _frames(base: Request, wishes: Wishes, fps: Fraction) -> int:
    if wishes.frames is not None and wishes.seconds is not None:
        raise bad("--seconds and --frames", "they exclude each other; give one of them")
    if wishes.frames is not None:
        return wishes.frames
    if wishes.seconds is not None:
        return frame_count(wishes.seconds, fps)
    return base.frames if base.frames == 1 else frame_count(base.seconds, fps)


def frame_count(seconds: Fraction, fps: Fraction) -> int:
    """floor(seconds x fps + 1/2), computed exactly; at least one frame."""
    frames = max(1, math.floor(seconds * fps + Fraction(1, 2)))
    if frames > MAX_FRAMES:
        raise bad(f"--seconds {float(seconds):g}", f"that is {frames} frames; {MAX_FRAMES} or fewer work")
    return frames


def rounding_note(seconds: Fraction | None, request: Request) -> str | None:
    """What to tell when the seconds asked are not a whole number of frames."""
    if seconds is None or seconds * request.fps == request.frames:
        return None
    return f"{float(seconds):g} s at {request.fps} fps is rounded to {request.frames} frames"


def bad(value: str, remedy: str) -> SoraError:
    """A usage error: the value, then what to do."""
    return SoraError("bad_usage", value, remedy)


# One option's text ------------------------------------------------------------------------------------------


def parse_size(text: str, defaults: "Defaults") -> tuple[int, int]:
    """`640x360`, `720p` or `16:9` -> (width, height).

    Lines (`720p`) are 16:9 with an even width. An aspect ratio has even sides and at least the
    pixels of the model's own size, which it is exactly when the ratios agree.
    """
    plain = text.strip().lower()
    if match := _PIXELS.fullmatch(plain):
        size = int(match[1]), int(match[2])
    elif match := _LINES.fullmatch(plain):
        size = 2 * round(int(match[1]) * 8 / 9), int(match[1])
    elif (match := _ASPECT.fullmatch(plain)) and int(match[1]) and int(match[2]):
        size = aspect_size(int(match[1]), int(match[2]), defaults)
    else:
        raise bad(f"--size {text}", "it is not a size; try 640x360, 720p or 16:9")
    least = max(16, defaults.min_side)
    if min(size) < least:
        raise bad(f"--size {text}", f"width and height are {least} or more; try 640x360")
    if max(size) > MAX_SIDE:
        raise bad(f"--size {text}", f"width and height are {MAX_SIDE} or less; try 1920x1080")
    return size


def aspect_size(across: int, down: int, defaults: "Defaults") -> tuple[int, int]:
    """The smallest even (width, height) near across:down with at least the default's pixels."""
    if across * defaults.height == down * defaults.width:
        return defaults.width, defaults.height
    if across < down:
        height, width = aspect_size(down, across, defaults)
        return width, height
    pixels = defaults.width * defaults.height
    ratio = Fraction(across, down)
    height = math.isqrt(math.ceil(pixels / ratio) - 1) + 1
    height += height % 2
    width = 2 * round(height * ratio / 2)
    return (width if width * height >= pixels else width + 2), height


def parse_seconds(text: str) -> Fraction:
    """`2`, `0.5` -> seconds, exactly."""
    seconds = _number("--seconds", text, "a number of seconds, as in 2 or 0.5")
    if not 0 < seconds <= MAX_FRAMES:
        raise bad(f"--seconds {text}", f"it is more than 0 and at most {MAX_FRAMES}; try 2")
    return seconds


def parse_fps(text: str) -> Fraction:
    """`24`, `23.976`, `30000/1001` -> frames per second, exactly."""
    numerator, _, denominator = text.strip().partition("/")
    if _RATIO.fullmatch(text.strip()) and int(denominator):
        fps = Fraction(int(numerator), int(denominator))
    else:
        fps = _number("--fps", text, "a rate, as in 24, 29.97 or 30000/1001")
    if not 1 <= fps <= MAX_FPS:
        raise bad(f"--fps {text}", f"it is 1 to {MAX_FPS}; try 24")
    return fps


def parse_guidance(text: str) -> float:
    """`3.5` -> how strongly the prompt is followed."""
    guidance = float(_number("--guidance", text, "a number, as in 3 or 4.5"))
    if guidance > MAX_GUIDANCE:
        raise bad(f"--guidance {text}", f"it is 0 to {MAX_GUIDANCE}; try 3")
    return guidance


def parse_strength(text: str) -> float:
    """`0.6` -> how far to leave what is there, 0 to 1."""
    strength = float(_number("--strength", text, "a number, as in 0.6"))
    if strength > 1:
        raise bad(f"--strength {text}", "it is 0 to 1; try 0.6")
    return strength


def parse_memory(text: str) -> int:
    """`512MB`, `4G`, `1.5GiB` -> bytes; units are powers of 1024."""
    match = _MEMORY.fullmatch(text.strip().lower())
    size = math.floor(Fraction(match[1]) * 1024 ** " kmgt".index(match[2] or " ")) if match else 0
    if not 0 < size < 2**60:
        raise bad(f"--memory {text}", "it is not an amount of memory; try 4G or 512MB")
    return size


def whole_number(option: str, least: int, most: int, example: int) -> Callable[[str], int]:
    """A parser of `option` that takes whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,20}", text.strip()):
            raise bad(f"{option} {text}", f"it is not a whole number; try {example}")
        if not least <= int(text) <= most:
            raise bad(f"{option} {text}", f"it is {least} to {most}; try {example}")
        return int(text)

    return parse


def one_of(option: str, choices: Sequence[str]) -> Callable[[str], str]:
    """A parser of `option` that takes the words in `choices`."""

    def parse(text: str) -> str:
        if text not in choices:
            raise bad(f"{option} {text}", f"it is one of {', '.join(choices)}")
        return text

    return parse


def words(option: str) -> Callable[[str], str]:
    """A parser of `option` that takes text of a sane length in valid Unicode."""

    def parse(text: str) -> str:
        if len(text) > MAX_TEXT:
            raise bad(f"{option} of {len(text)} characters", f"it is {MAX_TEXT} characters or fewer")
        if not _is_unicode(text):
            raise bad(option, "it is not valid UTF-8; retype it")
        return text

    return parse


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _number(option: str, text: str, example: str) -> Fraction:
    plain = text.strip().removeprefix("+")
    if not _NUMBER.fullmatch(plain):
        negative = _NUMBER.fullmatch(plain.removeprefix("-"))
        raise bad(f"{option} {text}", f"it is {'negative' if negative else 'not a number'}; give {example}")
    return Fraction(plain)


# Fields of a request that a file brought --------------------------------------------------------------------


def _unreadable(name: str, why: str) -> SoraError:
    return SoraError("bad_input", f"request.{name[:40]} {why}", "the file's metadata was not written by this version")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not _is_unicode(value):
        raise _unreadable(name, "is not a text of sane length")
    return value


def _integer(least: int, most: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise _unreadable(name, f"is not a whole number from {least} to {most}")
        return value

    return check


def _choice(choices: Sequence[str]) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if value not in choices:
            raise _unreadable(name, f"is not one of {', '.join(choices)}")
        return str(value)

    return check


def _rate(name: str, value: Any) -> Fraction:
    try:
        return parse_fps(_text(name, value))
    except SoraError as error:
        raise _unreadable(name, "is not a frame rate") from error


def _guidance(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= MAX_GUIDANCE:
        raise _unreadable(name, f"is not a number from 0 to {MAX_GUIDANCE}")
    return float(value)


def _memory(name: str, value: Any) -> int | None:
    return None if value is None else _integer(1, 2**60)(name, value)


def _path(name: str, value: Any) -> str | None:
    return None if value is None else _text(name, value)


def _side(name: str, value: Any) -> str | None:
    return None if value is None else _choice(SIDES)(name, value)


def _mode(name: str, value: Any) -> str | None:
    return None if value is None else _choice(MODES)(name, value)


def _strength(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise _unreadable(name, "is not a number from 0 to 1")
    return float(value)


def _pair(least: int, most: int, what: str) -> Callable[[str, Any], tuple[int, int] | None]:
    def check(name: str, value: Any) -> tuple[int, int] | None:
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2:
            raise _unreadable(name, f"is not {what}")
        first, second = (_integer(least, most)(name, each) for each in value)
        return first, second

    return check


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise _unreadable(name, "is neither true nor false")
    return value


_FIELDS: Mapping[str, Callable[[str, Any], Any]] = {
    "command": _text,
    "prompt": _text,
    "negative": _text,
    "model": _text,
    "width": _integer(16, MAX_SIDE),
    "height": _integer(16, MAX_SIDE),
    "frames": _integer(1, MAX_FRAMES),
    "fps": _rate,
    "steps": _integer(1, MAX_STEPS),
    "guidance": _guidance,
    "seed": _integer(0, MAX_SEED),
    "device": _choice(DEVICES),
    "dtype": _choice(DTYPES),
    "memory": _memory,
    "draft": _flag,
    "composed": _pair(16, MAX_SIDE, "a width and a height"),
    "image": _path,
    "last": _path,
    "clip": _path,
    "other": _path,
    "side": _side,
    "gap": _pair(0, MAX_FRAMES, "a first and a last frame"),
    "strength": _strength,
    "mask": _path,
    "mode": _mode,
    "prompt_b": _path,
}
