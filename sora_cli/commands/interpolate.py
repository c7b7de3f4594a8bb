"""`sora interpolate`: frames that lead from one clip to another."""

import typer

from sora_cli.commands.making import clip_request, make
from sora_cli.errors import SoraError
from sora_cli.options import ClipArg, ModeOpt, OtherArg, PromptArg, PromptBOpt, making


@making(without=("size",))
def interpolate(
    context: typer.Context,
    clip: ClipArg,
    other: OtherArg,
    prompt: PromptArg = None,
    prompt_b: PromptBOpt = None,
    mode: ModeOpt = None,
) -> None:
    """Join two clips by frames that lead from the one to the other."""
    if mode == "blend":
        raise SoraError("not_available", "--mode blend", "it is not in this version; --mode bridge is")
    if prompt_b is not None:
        raise SoraError("not_available", "--prompt-b", "it is not in this version; one prompt is for all new frames")
    make(context, *clip_request(context, "interpolate", clip, other=other), drawn=context.params["seed"] is None)
