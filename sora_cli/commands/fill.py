"""`sora fill`: frames of a clip are drawn anew."""

import re

import typer

from sora_cli.commands.making import clip_request, make
from sora_cli.errors import SoraError
from sora_cli.options import ClipArg, GapOpt, MaskOpt, PromptArg, making
from sora_cli.request import bad


@making(without=("size", "seconds", "frames"))
def fill(
    context: typer.Context, clip: ClipArg, prompt: PromptArg = None, gap: GapOpt = None, mask: MaskOpt = None
) -> None:
    """Draw a gap of a clip anew, between what is before and behind it."""
    if mask is not None:
        raise SoraError("not_available", "--mask", "it is not in this version; --frames A-B fills whole frames")
    made = clip_request(context, "fill", clip, gap=_gap(gap))
    make(context, *made, drawn=context.params["seed"] is None)


def _gap(text: str | None) -> tuple[int, int]:
    """`24-47` -> the first and the last frame. Raises SoraError("bad_usage")."""
    if text is None:
        raise bad("no --frames", "say which frames to draw anew, as in --frames 24-47")
    found = re.fullmatch(r"(\d{1,6})-(\d{1,6})", text.strip())
    if not found or int(found[1]) > int(found[2]):
        raise bad(f"--frames {text}", "it is a first and a last frame; try 24-47")
    return int(found[1]), int(found[2])
