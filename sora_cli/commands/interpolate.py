"""`sora interpolate`: frames that lead from one clip to another."""

from dataclasses import replace

import typer

from sora_cli.commands.making import clip_request, make
from sora_cli.options import ClipArg, ModeOpt, OtherArg, PromptArg, PromptBOpt, making

BLEND_STRENGTH = 0.6  # how far the frames of an overlap leave the cross-fade that they start from


@making(without=("size",))
def interpolate(
    context: typer.Context,
    clip: ClipArg,
    other: OtherArg,
    prompt: PromptArg = None,
    prompt_b: PromptBOpt = None,
    mode: ModeOpt = None,
) -> None:
    """Join two clips: by frames that lead from the one to the other, or by letting them overlap."""
    request, notes = clip_request(context, "interpolate", clip, other=other, mode=mode or "bridge", prompt_b=prompt_b)
    if request.mode == "blend":
        request = replace(request, strength=BLEND_STRENGTH)
    make(context, request, notes, drawn=context.params["seed"] is None)
