"""`sora img2vid`: a picture comes to life."""

from dataclasses import replace
from pathlib import Path

import typer

from sora_cli import naming
from sora_cli.commands.making import make, model_name, still
from sora_cli.media.picture import picture_size
from sora_cli.options import ImageArg, LastOpt, PromptArg, making, wishes_of
from sora_cli.request import DEFAULT_MODEL, Request, resolve, rounding_note

COMMAND = "img2vid"


@making()
def img2vid(context: typer.Context, image: ImageArg, prompt: PromptArg = None, last: LastOpt = None) -> None:
    """Bring a picture to life; with --last, end on another one."""
    request, notes = _request(context, image, last)
    make(context, request, notes, drawn=context.params["seed"] is None)


def _request(context: typer.Context, image: Path, last: Path | None) -> tuple[Request, list[str]]:
    """The request that the options make, in the picture's size unless another is named, and what to note about it."""
    from sora_weights.registry import find_model

    sizes = [picture_size(path) for path in (image, last) if path is not None]
    wishes = wishes_of(context)
    wishes = still(context, wishes) if naming.is_still(context.params["output"]) else wishes
    wishes = replace(
        wishes,
        size=wishes.size or "{}x{}".format(*sizes[0]),
        image=str(image),
        last=None if last is None else str(last),
    )
    model = find_model(DEFAULT_MODEL if wishes.model is None else wishes.model)
    request = replace(resolve(COMMAND, wishes, model.defaults), model=model_name(wishes.model, model))
    note = rounding_note(wishes.seconds, request)
    return request, [note] if note else []
