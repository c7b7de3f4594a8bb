"""The options that commands share, each declared once.

An option's value comes from the command line, its `SORA_*` variable or the settings files, in that order.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand

from sora_cli import settings
from sora_cli.console import Console
from sora_cli.request import (
    DEVICES,
    DTYPES,
    MAX_FRAMES,
    MAX_SEED,
    MAX_STEPS,
    Wishes,
    one_of,
    parse_fps,
    parse_guidance,
    parse_memory,
    parse_seconds,
    parse_strength,
    whole_number,
    words,
)

MAX_COUNT = 1000
RIVALS = {"seconds": "frames", "frames": "seconds"}
HELP_FLAGS = ("-h", "--help")
GOING_ON = "sora_cli.going_on"
"""Where a context says that what is there already stays, and what was stopped goes on."""

PromptArg = Annotated[str | None, typer.Argument(parser=words("prompt"), metavar="PROMPT", help="What to draw.")]
ImageArg = Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture to begin with.")]
LastOpt = Annotated[Path | None, typer.Option("--last", metavar="IMAGE", help="The picture to end on.")]
ClipArg = Annotated[str, typer.Argument(metavar="CLIP", help="A video, an animation or a picture.")]
OtherArg = Annotated[str, typer.Argument(metavar="B", help="The clip to arrive at.")]
ForwardOpt = Annotated[bool, typer.Option("--forward", help="New frames behind the clip. [default]")]
BackwardOpt = Annotated[bool, typer.Option("--backward", help="New frames before the clip.")]
BothOpt = Annotated[bool, typer.Option("--both", help="New frames on both sides.")]
PromptBOpt = Annotated[
    str | None,
    typer.Option("--prompt-b", metavar="TEXT", parser=words("--prompt-b"), help="What the second clip shows."),
]
NeededPromptArg = Annotated[str, typer.Argument(parser=words("prompt"), metavar="PROMPT", help="What to draw.")]
StrengthOpt = Annotated[
    float | None,
    typer.Option(
        "--strength",
        metavar="X",
        parser=parse_strength,
        help="How far to leave what is there: 0 not at all, 1 altogether. [default: edit 0.6, upscale 0.4]",
    ),
]
ModeOpt = Annotated[
    str | None,
    typer.Option(
        "--mode",
        metavar="bridge|blend",
        parser=one_of("--mode", ("bridge", "blend")),
        help="New frames between the clips, or the clips overlapping. [default: bridge]",
    ),
]
GapOpt = Annotated[
    str | None, typer.Option("--frames", metavar="A-B", help="The first and the last frame to draw anew, from 0.")
]
MaskOpt = Annotated[
    Path | None, typer.Option("--mask", metavar="IMAGE", help="A picture that is white where to draw anew.")
]

ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="SORA_MODEL",
        metavar="NAME|FOLDER|HUB-ID",
        parser=words("--model"),
        help="The weights to use. [default: diorama]",
    ),
]
SizeOpt = Annotated[
    str | None,
    typer.Option(
        "--size",
        envvar="SORA_SIZE",
        metavar="WxH|720p|16:9",
        parser=words("--size"),
        help="Pixels, lines, or an aspect ratio. [default: the model's]",
    ),
]
SecondsOpt = Annotated[
    Fraction | None,
    typer.Option(
        "--seconds",
        envvar="SORA_SECONDS",
        metavar="S",
        parser=parse_seconds,
        help="How long. [default: the model's; diorama's is 2]",
    ),
]
FramesOpt = Annotated[
    int | None,
    typer.Option(
        "--frames",
        envvar="SORA_FRAMES",
        metavar="N",
        parser=whole_number("--frames", 1, MAX_FRAMES, 48),
        help="How many frames, instead of --seconds.",
    ),
]
FpsOpt = Annotated[
    Fraction | None,
    typer.Option(
        "--fps",
        envvar="SORA_FPS",
        metavar="RATE",
        parser=parse_fps,
        help="Frames per second: 24, 29.97, 30000/1001. [default: the model's; diorama's is 24]",
    ),
]
StepsOpt = Annotated[
    int | None,
    typer.Option(
        "--steps",
        envvar="SORA_STEPS",
        metavar="N",
        parser=whole_number("--steps", 1, MAX_STEPS, 20),
        help="Denoising steps: more is slower and finer. [default: the model's]",
    ),
]
GuidanceOpt = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        envvar="SORA_GUIDANCE",
        metavar="X",
        parser=parse_guidance,
        help="How strictly the prompt is followed. [default: the model's]",
    ),
]
NegativeOpt = Annotated[
    str | None,
    typer.Option(
        "--negative",
        envvar="SORA_NEGATIVE",
        metavar="TEXT",
        parser=words("--negative"),
        help="What not to draw.",
    ),
]
SeedOpt = Annotated[
    int | None,
    typer.Option(
        "--seed",
        envvar="SORA_SEED",
        metavar="N",
        parser=whole_number("--seed", 0, MAX_SEED, 0),
        help="The same seed gives the same frames. [default: a fresh one, which is reported]",
    ),
]
CountOpt = Annotated[
    int | None,
    typer.Option(
        "--count",
        envvar="SORA_COUNT",
        metavar="N",
        parser=whole_number("--count", 1, MAX_COUNT, 4),
        help="How many, with seeds S, S+1 ... and names with -0, -1 ... [default: 1]",
    ),
]
OutputOpt = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="A .mp4 .mov .webm .mkv .gif .webp .png .jpg file, frames/%04d.png, or a folder/. "
        "[default: a fresh name here]",
    ),
]
ForceOpt = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
DeviceOpt = Annotated[
    str | None,
    typer.Option(
        "--device",
        envvar="SORA_DEVICE",
        metavar="|".join(DEVICES),
        parser=one_of("--device", DEVICES),
        help="Where to compute. [default: auto]",
    ),
]
DtypeOpt = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        envvar="SORA_DTYPE",
        metavar="|".join(DTYPES),
        parser=one_of("--dtype", DTYPES),
        help="The precision to compute in. [default: auto]",
    ),
]
MemoryOpt = Annotated[
    int | None,
    typer.Option(
        "--memory",
        envvar="SORA_MEMORY",
        metavar="SIZE",
        parser=parse_memory,
        help="The memory to stay within: 4G, 512MB. It never changes the picture.",
    ),
]
DraftOpt = Annotated[
    bool, typer.Option("--draft", help="A quick small version, which --from FILE --size WxH makes large.")
]
FromOpt = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Make FILE again from its metadata; options beside it change what they name.",
    ),
]
DryRunOpt = Annotated[bool, typer.Option("--dry-run", help="Check everything, tell the plan, make nothing.")]
NoMetadataOpt = Annotated[bool, typer.Option("--no-metadata", help="Leave the request out of the file.")]
PreviewOpt = Annotated[
    Path | None, typer.Option("--preview-file", metavar="PNG", help="Keep a picture of the work so far here.")
]
JsonOpt = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
JsonStreamOpt = Annotated[bool, typer.Option("--json-stream", help="JSON events on stdout, the result last.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", envvar="SORA_QUIET", help="No progress, no notes.")]
DebugOpt = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


MAKING: Mapping[str, tuple[Any, Any]] = {
    "model": (ModelOpt, None),
    "size": (SizeOpt, None),
    "seconds": (SecondsOpt, None),
    "frames": (FramesOpt, None),
    "fps": (FpsOpt, None),
    "steps": (StepsOpt, None),
    "guidance": (GuidanceOpt, None),
    "negative": (NegativeOpt, None),
    "seed": (SeedOpt, None),
    "count": (CountOpt, None),
    "output": (OutputOpt, None),
    "force": (ForceOpt, False),
    "device": (DeviceOpt, None),
    "dtype": (DtypeOpt, None),
    "memory": (MemoryOpt, None),
    "draft": (DraftOpt, False),
    "dry_run": (DryRunOpt, False),
    "no_metadata": (NoMetadataOpt, False),
    "preview_file": (PreviewOpt, None),
    "json": (JsonOpt, False),
    "json_stream": (JsonStreamOpt, False),
    "quiet": (QuietOpt, False),
    "debug": (DebugOpt, False),
}
"""The options of every command that makes something, with their defaults, in the order of the help page."""


def making(*, without: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds `MAKING` to a command, but for those named; it finds them among its context's parameters."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)
        shared = {name: option for name, option in MAKING.items() if name not in without}

        @wraps(command)
        def run(**given: Any) -> None:
            command(**{name: given[name] for name in own.parameters})

        keyword = inspect.Parameter.KEYWORD_ONLY
        mine = [parameter.replace(kind=keyword) for parameter in own.parameters.values()]
        more = [
            inspect.Parameter(name, keyword, default=default, annotation=kind)
            for name, (kind, default) in shared.items()
        ]
        run.__signature__ = own.replace(parameters=[*mine, *more])  # type: ignore[attr-defined]
        run.__annotations__ = command.__annotations__ | {name: kind for name, (kind, _) in shared.items()}
        return run

    return add


class ConfiguredCommand(TyperCommand):
    """A command whose options default to the settings files."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Reads the settings, except for a help page; raises `bad_settings`."""
        if not set(HELP_FLAGS) & set(args):
            extra.setdefault("default_map", settings.load())
        return super().make_context(info_name, args, parent, **extra)


def console_of(context: typer.Context) -> Console:
    """The console of this run, as quiet as the options say."""
    console = cast(Console, context.obj)
    console.quiet = console.quiet or bool(context.params.get("quiet"))
    return console


def goes_on(context: typer.Context) -> bool:
    """Whether what is there already stays, and what was stopped goes on."""
    return bool(context.meta.get(GOING_ON))


def wishes_of(context: typer.Context) -> Wishes:
    """All that was named for the request, wherever it was named.

    Of --seconds and --frames the one from the stronger source counts.
    """
    named = {name: value for name in _NAMES if (value := context.params.get(name)) is not None}
    for name, rival in RIVALS.items():
        if name in named and rival in named and _rank(context, name) > _rank(context, rival):
            del named[name]
    return Wishes(**named)


def replay_wishes_of(context: typer.Context) -> Wishes:
    """What may change a request that is replayed: the command line, and this machine's device and memory."""
    wishes = wishes_of(context)
    kept = {name: getattr(wishes, name) for name in _NAMES if name in ("device", "memory") or is_named(context, name)}
    return Wishes(**kept)


def is_named(context: typer.Context, name: str) -> bool:
    """Whether the option `name` stands on the command line itself."""
    return _rank(context, name) == 0


_NAMES = tuple(field.name for field in fields(Wishes))
_SOURCES = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")


def _rank(context: typer.Context, name: str) -> int:
    """How strong the source of an option's value is; 0 is the command line."""
    source = context.get_parameter_source(name)
    return _SOURCES.index(source.name) if source is not None and source.name in _SOURCES else len(_SOURCES)
