"""`sora generate`: words to a video or an image."""

from dataclasses import replace
from pathlib import Path

import typer

from sora_cli import naming
from sora_cli.commands.making import make, model_name, still
from sora_cli.errors import SoraError
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
    replay_wishes_of,
    wishes_of,
)
from sora_cli.request import DEFAULT_MODEL, Request, Wishes, bad, resolve, revise, rounding_note

COMMAND = "generate"


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
    request, notes = _request(context)
    make(context, console, request, notes, drawn=seed is None and source is None)


def _request(context: typer.Context) -> tuple[Request, list[str]]:
    """The request that the options make, on their own or over a file's, and what to note about it."""
    given = context.params
    if given["draft"]:
        raise SoraError("not_available", "--draft", "it is not in this version; a small --size is quick too")
    wishes = replay_wishes_of(context) if given["source"] else wishes_of(context)
    wishes = still(context, wishes) if naming.is_still(given["output"]) else wishes
    request, note = _replayed(given["source"], wishes) if given["source"] else (_fresh(wishes), None)
    return request, [text for text in (note, rounding_note(wishes.seconds, request)) if text]


def _fresh(wishes: Wishes) -> Request:
    """A request from options alone."""
    from sora_weights.registry import find_model

    if wishes.prompt is None:
        raise bad("no prompt", 'say what to draw, as in sora generate "a cat at sunset", or give --from FILE')
    model = find_model(DEFAULT_MODEL if wishes.model is None else wishes.model)
    return replace(resolve(COMMAND, wishes, model.defaults), model=model_name(wishes.model, model))


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
