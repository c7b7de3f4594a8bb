"""`sora loop`: a clip flows back into its beginning."""

import typer

from sora_cli.commands.making import clip_request, make
from sora_cli.options import ClipArg, PromptArg, making


@making(without=("size",))
def loop(context: typer.Context, clip: ClipArg, prompt: PromptArg = None) -> None:
    """Make a clip flow back into its beginning, so that it can play for ever."""
    make(context, *clip_request(context, "loop", clip), drawn=context.params["seed"] is None)
