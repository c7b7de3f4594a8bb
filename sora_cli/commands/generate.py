"""`sora generate`: words to a video or an image."""

from dataclasses import replace
from pathlib import Path

import typer

from sora_cli import naming
from sora_cli.commands.making import make, model_name, still
from sora_cli.options import FromOpt, PromptArg, making, replay_wishes_of, wishes_of
from sora_cli.request import DEFAULT_MODEL, Request, Wishes, bad, resolve, revise, rounding_note

COMMAND = "generate"


@making()
def generate(context: typer.Context, prompt: PromptArg = None, source: FromOpt = None) -> None:
    """Make a video, or an image, from words."""
    request, notes = _request(context)
    make(context, request, notes, drawn=context.params["seed"] is None and source is None)


def _request(context: typer.Context) -> tuple[Request, list[str]]:
    """The request that the options make, on their own or over a file's, and what to note about it."""
    given = context.params
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
