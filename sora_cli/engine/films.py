"""From a request to the film that it asks for: the one place where commands become canvases."""

from collections.abc import Callable, Mapping, Sequence

from sora_cli.engine.boards import (
    Film,
    blended,
    bridged,
    drawn,
    extended,
    filled,
    looped,
    pictured,
    reconstructed,
    redrawn,
)
from sora_cli.errors import SoraError
from sora_cli.request import Request
from sora_weights.spec import Grid, Knowing

Maker = Callable[[Request, Sequence[int], Grid, Knowing], Film]


def film_of(request: Request, counts: Sequence[int], grid: Grid, knows: Knowing) -> Film:
    """The film of a request whose sources have `counts` frames, for a model that is told of known frames as it is.

    Raises SoraError("bad_usage") where model and command don't go together.
    """
    takes_picture = knows == "channels"
    if takes_picture and request.command != "img2vid":
        raise SoraError("bad_usage", f"--model {request.model}", "it brings pictures to life: use sora img2vid")
    return MAKERS[request.command](request, counts, grid, knows)


def _generate(request: Request, counts: Sequence[int], grid: Grid, knows: Knowing) -> Film:
    return drawn(request.frames)


def _img2vid(request: Request, counts: Sequence[int], grid: Grid, knows: Knowing) -> Film:
    """Networks with condition channels draw the picture too, as their references do."""
    if knows == "channels":
        return drawn(request.frames)
    return pictured(request.frames, grid, last=request.last is not None)


def _extend(request: Request, counts: Sequence[int], grid: Grid, knows: Knowing) -> Film:
    before = request.frames if request.side in ("backward", "both") else 0
    behind = request.frames if request.side in ("forward", "both") else 0
    return extended(counts[0], before, behind, request.fps, grid)


def _loop(request: Request, counts: Sequence[int], grid: Grid, knows: Knowing) -> Film:
    return looped(counts[0], request.frames, request.fps, grid)


def _interpolate(request: Request, counts: Sequence[int], grid: Grid, knows: Knowing) -> Film:
    if request.mode != "blend":
        return bridged(counts[0], counts[1], request.frames, request.fps, grid)
    if request.frames >= min(counts):
        shorter = f"the shorter clip has {min(counts)} frames"
        raise SoraError("bad_usage", f"an overlap of {request.frames} frames", f"{shorter}; ask for fewer --seconds")
    return blended(counts[0], counts[1], request.frames, request.fps, grid)


def _fill(request: Request, counts: Sequence[int], grid: Grid, knows: Knowing) -> Film:
    if request.gap is None:
        return redrawn(counts[0], grid)
    first, last = request.gap
    return filled(counts[0], first, last, request.fps, grid)


def _redraw(request: Request, counts: Sequence[int], grid: Grid, knows: Knowing) -> Film:
    return redrawn(counts[0], grid) if request.strength else reconstructed(counts[0], grid)


def _reconstruct(request: Request, counts: Sequence[int], grid: Grid, knows: Knowing) -> Film:
    return reconstructed(counts[0], grid)


MAKERS: Mapping[str, Maker] = {
    "generate": _generate,
    "img2vid": _img2vid,
    "extend": _extend,
    "loop": _loop,
    "interpolate": _interpolate,
    "fill": _fill,
    "edit": _redraw,
    "upscale": _redraw,
    "reconstruct": _reconstruct,
}
