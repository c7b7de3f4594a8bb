"""`sora info`: what a video or picture file holds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sora_cli.errors import one_line
from sora_cli.options import DebugOpt, JsonOpt, JsonStreamOpt, QuietOpt, console_of

if TYPE_CHECKING:
    from sora_cli.media.probe import Probe


def info(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A video, a picture, or frames/%04d.png.")],
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Tell what a video or picture holds, and how sora made it."""
    from sora_cli.media.probe import probe

    found = probe(file)
    console_of(context).answer("info", found.to_json(), [one_line(line) for line in _lines(found)])


def _lines(found: "Probe") -> Iterator[str]:
    yield f"{found.path}: {found.kind}, {found.container}, {found.codec} {found.pixel_format}"
    yield f"{found.width}x{found.height} pixels, {found.frames} frames"
    if found.fps is not None:
        about = "about " if found.variable_rate else ""
        yield f"{about}{found.fps} frames per second, {found.seconds:.3f} seconds"
    if found.rotation:
        yield f"rotated {found.rotation} degrees from {found.coded_width}x{found.coded_height}"
    for audio in found.audio:
        yield f"audio: {audio.codec}, {audio.channels} channels, {audio.sample_rate} Hz"
    if found.metadata is not None:
        yield from _making(found.metadata)


def _making(record: Mapping[str, Any]) -> Iterator[str]:
    """How sora made the file; the record may come from anywhere, so that only text is told."""
    yield f"made by: sora {record.get('command')} {record.get('version')}"
    request = record.get("request")
    if isinstance(request, dict):
        for name in ("prompt", "negative", "model", "steps", "guidance", "seed"):
            if (value := request.get(name)) not in (None, ""):
                yield f"{name}: {value}"
