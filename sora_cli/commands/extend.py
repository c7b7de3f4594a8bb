"""`sora extend`: a clip goes on, or begins earlier."""

import typer

from sora_cli.commands.making import clip_request, make
from sora_cli.options import BackwardOpt, BothOpt, ClipArg, ForwardOpt, PromptArg, making
from sora_cli.request import bad


@making(without=("size",))
def extend(
    context: typer.Context,
    clip: ClipArg,
    prompt: PromptArg = None,
    forward: ForwardOpt = False,
    backward: BackwardOpt = False,
    both: BothOpt = False,
) -> None:
    """Continue a clip: behind it, before it, or both."""
    if forward + backward + both > 1:
        raise bad("--forward, --backward and --both", "they exclude each other; give one of them")
    side = "both" if both else "backward" if backward else "forward"
    make(context, *clip_request(context, "extend", clip, side=side), drawn=context.params["seed"] is None)
