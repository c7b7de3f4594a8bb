"""`sora edit`: a clip, changed by words."""

from dataclasses import replace

import typer

from sora_cli.commands.making import clip_request, make
from sora_cli.options import ClipArg, MaskOpt, NeededPromptArg, StrengthOpt, making

STRENGTH = 0.6


@making(without=("size", "seconds", "frames"))
def edit(
    context: typer.Context,
    clip: ClipArg,
    prompt: NeededPromptArg,
    strength: StrengthOpt = None,
    mask: MaskOpt = None,
) -> None:
    """Change a clip by words, all of it or inside a mask."""
    request, notes = clip_request(context, "edit", clip, mask=None if mask is None else str(mask))
    request = replace(request, strength=STRENGTH if strength is None else strength)
    make(context, request, notes, drawn=context.params["seed"] is None)
