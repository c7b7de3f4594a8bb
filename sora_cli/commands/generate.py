"""`sora generate`: words to a video or an image."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from sora_cli import naming
from sora_cli.console import Console
from sora_cli.errors import SoraError
from sora_cli.guard import before_dashes
from sora_cli.options import (
    CountOpt,
    DebugOpt,
    DeviceOpt,
    DraftOpt,
    DryRunOpt,
    DtypeOpt,
    ForceOpt,
    FpsOpt,
    FramesOpt,
    FromOpt,
    GuidanceOpt,
    JsonOpt,
    JsonStreamOpt,
    MemoryOpt,
    ModelOpt,
    NegativeOpt,
    NoMetadataOpt,
    OutputOpt,
    PreviewOpt,
    PromptArg,
    QuietOpt,
    SecondsOpt,
    SeedOpt,
    SizeOpt,
    StepsOpt,
    console_of,
    is_named,
    replay_wishes_of,
    wishes_of,
)
from sora_cli.request import DEFAULT_MODEL, MAX_SEED, Request, Wishes, bad, resolve, revise, rounding_note
from sora_cli.result import merge
from sora_weights.spec import Model

COMMAND = "generate"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the results go and how they are written; `output` is the option as given."""

    paths: tuple[Path, ...]
    output: str | None
    force: bool
    embed_metadata: bool
    preview: Path | None


def generate(
    context: typer.Context,
    prompt: PromptArg = None,
    source: FromOpt = None,
    model: ModelOpt = None,
    size: SizeOpt = None,
    seconds: SecondsOpt = None,
    frames: FramesOpt = None,
    fps: FpsOpt = None,
    steps: StepsOpt = None,
    guidance: GuidanceOpt = None,
    negative: NegativeOpt = None,
    seed: SeedOpt = None,
    count: CountOpt = None,
    output: OutputOpt = None,
    force: ForceOpt = False,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    memory: MemoryOpt = None,
    draft: DraftOpt = False,
    dry_run: DryRunOpt = False,
    no_metadata: NoMetadataOpt = False,
    preview_file: PreviewOpt = None,
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Make a video, or an image, from words."""
    console = console_of(context)
    count = count or 1
    request, notes = _request(context)
    if request.seed + count - 1 > MAX_SEED:
        raise bad(f"--seed {request.seed} with --count {count}", f"the last seed is {MAX_SEED}; take a lower one")
    paths = naming.output_paths(output, request.prompt, count)
    delivery = Delivery(paths, output, force, not no_metadata, preview_file)
    _check(delivery, request)
    planned = _planned(request)
    _announce(console, request, notes, drawn=seed is None and source is None)
    asked = {**request.to_json(), "count": count, "force": force, "metadata": not no_metadata}
    if dry_run:
        console.plan(COMMAND, request.seed, asked, {**planned, "outputs": [str(path) for path in paths]})
    else:
        _render(request, delivery, asked, console)


def _request(context: typer.Context) -> tuple[Request, list[str]]:
    """The request that the options make, on their own or over a file's, and what to note about it."""
    given = context.params
    if given["draft"]:
        raise SoraError("not_available", "--draft", "it is not in this version; a small --size is quick too")
    wishes = replay_wishes_of(context) if given["source"] else wishes_of(context)
    wishes = _still(context, wishes) if naming.is_still(given["output"]) else wishes
    request, note = _replayed(given["source"], wishes) if given["source"] else (_fresh(wishes), None)
    return request, [text for text in (note, rounding_note(wishes.seconds, request)) if text]


def _announce(console: Console, request: Request, notes: list[str], *, drawn: bool) -> None:
    """Tells what had to be chosen, once nothing more can be refused here."""
    for note in notes:
        console.note(note)
    if drawn:
        console.say(f"seed {request.seed}")
        end = len(before_dashes(console.again))
        console.again[end:end] = ["--seed", str(request.seed)]


def _still(context: typer.Context, wishes: Wishes) -> Wishes:
    """`wishes` for an image: one frame, unless the command line insists on more, which is refused."""
    output = context.params["output"]
    if is_named(context, "seconds"):
        raise bad(f"--seconds with {output}", "an image has one frame; name a video, or frames/%04d.png")
    if is_named(context, "frames") and context.params["frames"] != 1:
        raise bad(
            f"--frames {context.params['frames']} with {output}",
            "an image has one frame; name a video, or frames/%04d.png",
        )
    return replace(wishes, seconds=None, frames=1)


def _fresh(wishes: Wishes) -> Request:
    """A request from options alone."""
    from sora_weights.registry import find_model

    if wishes.prompt is None:
        raise bad("no prompt", 'say what to draw, as in sora generate "a cat at sunset", or give --from FILE')
    model = find_model(DEFAULT_MODEL if wishes.model is None else wishes.model)
    return replace(resolve(COMMAND, wishes, model.defaults), model=_name(wishes.model, model))


def _name(asked: str | None, model: Model) -> str:
    """What a file's metadata calls the model: the name behind "default", else as asked."""
    return model.name if asked in (None, "default") else asked


def _replayed(source: Path, wishes: Wishes) -> tuple[Request, str | None]:
    """The request in `source` with what `wishes` change, and a note if its weights are not those here."""
    from sora_cli.replay import read_record
    from sora_weights.registry import find_model

    recorded, digest = read_record(source, COMMAND)
    model = find_model(recorded.model if wishes.model is None else wishes.model)
    note = None
    if wishes.model is None and model.digest() != digest:
        note = (
            f"{source} was made with other weights of {model.name} "
            f"({digest[:12]}, here {model.digest()[:12]}): the frames will differ"
        )
    return revise(recorded, wishes, model.defaults), note


def _check(delivery: Delivery, request: Request) -> None:
    """Refuses, before any work, what could only fail at the end."""
    from sora_cli.media.formats import check_limits, format_of, is_folder_text
    from sora_cli.media.writer import check_output

    make = delivery.output is not None and is_folder_text(delivery.output)
    for path in delivery.paths:
        check_output(path, frames=request.frames, force=delivery.force, make_folder=make)
        check_limits(format_of(path), request.width, request.height, request.fps)
    if delivery.preview is not None:
        naming.check_preview(delivery.preview, delivery.paths, force=delivery.force)


def _planned(request: Request) -> dict[str, Any]:
    """What would be done. Raises SoraError memory_too_small and device_unavailable."""
    from sora_cli.engine.render import plan

    planned = plan(request)
    if request.device not in ("auto", "cpu"):  # those are always there, and torch is slow to import
        from sora_cli.engine.devices import choose_device

        choose_device(request.device)
    return planned


def _render(request: Request, delivery: Delivery, asked: dict[str, Any], console: Console) -> None:
    """Makes each result, with seeds that follow one another."""
    from sora_cli.engine.render import render

    with naming.made_folder(delivery.output):
        results = [
            render(
                replace(request, seed=request.seed + k),
                output=path,
                force=delivery.force,
                embed_metadata=delivery.embed_metadata,
                preview=delivery.preview,
                progress=console,
            )
            for k, path in enumerate(delivery.paths)
        ]
    console.result(merge(results), command=COMMAND, seed=request.seed, request=asked)
