"""`sora upscale`: a clip, larger and finer."""

from dataclasses import replace

import typer

from sora_cli.commands.making import clip_request, make
from sora_cli.options import ClipArg, StrengthOpt, making
from sora_cli.request import bad, parse_size

STRENGTH = 0.4


@making(without=("seconds", "frames"))
def upscale(context: typer.Context, clip: ClipArg, strength: StrengthOpt = None) -> None:
    """Enlarge a clip and add detail, with the prompt and the seed that it was made with."""
    from sora_weights.registry import find_model

    request, notes = clip_request(context, "upscale", clip)
    if context.params["size"] is None:
        raise bad("no --size", "say how large, as in --size 1280x720")
    width, height = parse_size(context.params["size"], find_model(request.model).defaults)
    request = replace(request, width=width, height=height, strength=STRENGTH if strength is None else strength)
    make(context, request, notes, drawn=context.params["seed"] is None)
