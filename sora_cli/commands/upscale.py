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

    whole, notes = clip_request(context, "upscale", clip)
    if context.params["size"] is None:
        raise bad("no --size", "say how large, as in --size 1280x720")
    width, height = parse_size(context.params["size"], find_model(whole.model).defaults)
    if width < whole.width or height < whole.height or (width, height) == (whole.width, whole.height):
        raise bad(f"--size {width}x{height}", f"the clip has {whole.width}x{whole.height}; ask for more")
    request = replace(whole, width=width, height=height, strength=STRENGTH if strength is None else strength)
    if round(width * whole.height / whole.width) != height:
        notes.append(f"{width}x{height} has another shape than the clip: its middle is shown")
    make(context, request, notes, drawn=context.params["seed"] is None)
