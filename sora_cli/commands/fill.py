"""`sora fill`: frames of a clip are drawn anew."""

import re

import typer

from sora_cli.commands.making import clip_request, make
from sora_cli.options import ClipArg, GapOpt, MaskOpt, PromptArg, making
from sora_cli.request import bad


@making(without=("size", "seconds", "frames"))
def fill(
    context: typer.Context, clip: ClipArg, prompt: PromptArg = None, gap: GapOpt = None, mask: MaskOpt = None
) -> None:
    """Draw a gap of a clip anew: frames between what is before and behind them, or what a mask covers."""
    if (gap is None) == (mask is None):
        told = "no --frames and no --mask" if gap is None else "--frames and --mask"
        raise bad(told, "say what to draw anew: --frames 24-47, or --mask IMAGE")
    where = {"gap": _gap(gap)} if gap is not None else {"mask": str(mask)}
    make(context, *clip_request(context, "fill", clip, **where), drawn=context.params["seed"] is None)


def _gap(text: str) -> tuple[int, int]:
    """`24-47` -> the first and the last frame. Raises SoraError("bad_usage")."""
    found = re.fullmatch(r"(\d{1,6})-(\d{1,6})", text.strip())
    if not found or int(found[1]) > int(found[2]):
        raise bad(f"--frames {text}", "it is a first and a last frame; try 24-47")
    return int(found[1]), int(found[2])
