"""`sora reconstruct`: a clip through the autoencoder and back."""

import typer

from sora_cli.commands.making import clip_request, make
from sora_cli.options import ClipArg, making


@making(without=("size", "seconds", "frames", "fps", "steps", "guidance", "negative", "count", "draft"))
def reconstruct(context: typer.Context, clip: ClipArg) -> None:
    """Encode and decode a clip, and measure what is lost."""
    make(context, *clip_request(context, "reconstruct", clip), drawn=False)
