"""What all commands that make something share: options become a request and a delivery, and those become files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import typer

from sora_cli import naming
from sora_cli.claims import Claims
from sora_cli.console import Console
from sora_cli.errors import SoraError, resume_hint
from sora_cli.guard import before_dashes
from sora_cli.options import console_of, goes_on, is_named, wishes_of
from sora_cli.remains import Piece, as_begun, left_of, pieces_of
from sora_cli.request import DEFAULT_MODEL, MAX_SEED, Request, Wishes, bad, resolve, rounding_note
from sora_cli.result import Result, merge
from sora_weights.spec import Model

LEAST_SIDE = 16  # pixels


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the results go and how they are written; `output` is the option as given."""

    paths: tuple[Path, ...]
    output: str | None
    force: bool
    embed_metadata: bool
    preview: Path | None


def make(context: typer.Context, request: Request, notes: list[str], *, drawn: bool) -> None:
    """Makes what `request` and the shared options of the command line describe, or tells the plan of it.

    `notes` are told first; `drawn` says that nobody named the seed.
    """
    given = context.params
    count = given.get("count") or 1
    if request.seed + count - 1 > MAX_SEED:
        raise bad(f"--seed {request.seed} with --count {count}", f"the last seed is {MAX_SEED}; take a lower one")
    with Claims() as claims:
        paths = naming.output_paths(given["output"], _stem(request), count, claims.take)
        _make(context, request, notes, paths, drawn=drawn)


def _make(context: typer.Context, request: Request, notes: list[str], paths: tuple[Path, ...], *, drawn: bool) -> None:
    """`make`, with the names of the results found."""
    console, given = console_of(context), context.params
    keep = not given["no_metadata"]
    delivery = Delivery(paths, given["output"], given["force"], keep, given["preview_file"])
    going_on = goes_on(context)
    request = as_begun(request, paths) if going_on and drawn else request
    pieces = pieces_of(request, paths)
    planned = _planned(request, delivery)
    if going_on:
        pieces = left_of(pieces, console, force=delivery.force)
    _check(delivery, request, planned.get("frames", request.frames), [each.path for each in pieces if not each.stopped])
    _announce(console, request, notes, drawn=drawn)
    asked = {**request.to_json(), "count": len(paths), "force": given["force"], "metadata": keep}
    if given["dry_run"]:
        console.plan(request.command, request.seed, asked, {**planned, "outputs": [str(path) for path in paths]})
    else:
        _render(pieces, delivery, asked, console)


def _stem(request: Request) -> str:
    """What a fresh name is made of: the clip's name and what was done to it, else the prompt or the picture's name."""
    if request.clip is not None:
        clip = Path(request.clip)
        return f"{clip.parent.name if '%' in clip.name else clip.stem} {request.command}"
    return request.prompt or (Path(request.image).stem if request.image else request.command)


def _announce(console: Console, request: Request, notes: list[str], *, drawn: bool) -> None:
    """Tells what had to be chosen, once nothing more can be refused here."""
    for note in notes:
        console.note(note)
    if drawn:
        console.say(f"seed {request.seed}")
        end = len(before_dashes(console.again))
        console.again[end:end] = ["--seed", str(request.seed)]


def still(context: typer.Context, wishes: Wishes) -> Wishes:
    """`wishes` for an image: one frame, unless the command line insists on more, which is refused."""
    output = context.params["output"]
    if is_named(context, "seconds"):
        raise bad(f"--seconds with {output}", "an image has one frame; name a video, or frames/%04d.png")
    if is_named(context, "frames") and context.params["frames"] != 1:
        raise bad(
            f"--frames {context.params['frames']} with {output}",
            "an image has one frame; name a video, or frames/%04d.png",
        )
    return replace(wishes, seconds=None, frames=1)


def model_name(asked: str | None, model: Model) -> str:
    """What a file's metadata calls the model: the name behind "default", else as asked."""
    return model.name if asked in (None, "default") else asked


def clip_request(context: typer.Context, command: str, clip: str, **more: Any) -> tuple[Request, list[str]]:
    """The request of a command on a clip, in the clip's size and rate, and what to note about it.

    Its prompt is the one named, else that of the clip's metadata, else none. `more` are further fields of a request.
    Raises SoraError (bad_usage, missing_input, bad_input).
    """
    from sora_cli.engine.timing import retimed_count
    from sora_cli.engine.work import own_prompt, probed
    from sora_weights.registry import find_model

    found, wishes = probed(clip), wishes_of(context)
    for path in (clip, more.get("other")):
        if path is not None and min(probed(path).width, probed(path).height) < LEAST_SIDE:
            raise SoraError("bad_input", f"{path}: it is narrower than {LEAST_SIDE} pixels", "give a larger clip")
    model = find_model(DEFAULT_MODEL if wishes.model is None else wishes.model)
    fps = wishes.fps if is_named(context, "fps") and wishes.fps else found.fps or model.defaults.fps
    prompt = own_prompt(clip) if wishes.prompt is None else wishes.prompt
    wishes = replace(wishes, size=None, fps=fps, prompt=prompt)
    if command == "upscale" and wishes.seed is None:
        wishes = replace(wishes, seed=_seed(clip))
    wishes = wishes if wishes.frames or wishes.seconds else replace(wishes, seconds=Fraction(2))
    request = replace(
        resolve(command, wishes, model.defaults),
        model=model_name(wishes.model, model),
        width=found.width,
        height=found.height,
        clip=clip,
        **more,
    )
    note = rounding_note(wishes.seconds, request)
    if command in ("fill", "edit", "upscale", "reconstruct"):
        return _counted(request, retimed_count(found, fps)), []
    return request, [note] if note else []


def _counted(request: Request, clip: int) -> Request:
    """A request whose frames follow from a clip of `clip` frames. Raises SoraError("bad_usage") for a gap outside."""
    if request.gap is None:
        return replace(request, frames=clip)
    first, last = request.gap
    if last >= clip:
        raise bad(f"--frames {first}-{last}", f"the clip's frames are 0-{clip - 1}")
    return replace(request, frames=last - first + 1)


def _seed(clip: str) -> int | None:
    """The seed that a file was made with, as far as its metadata can be believed."""
    from sora_cli.engine.work import recorded

    seed = recorded(clip, "seed")
    return seed if type(seed) is int and 0 <= seed <= MAX_SEED else None


def _check(delivery: Delivery, request: Request, frames: int, paths: Sequence[Path]) -> None:
    """Refuses, before any work, what could only fail at the end of `frames` frames that go to each of `paths`."""
    from sora_cli.media.formats import check_limits, format_of, is_folder_text
    from sora_cli.media.writer import check_output

    make = delivery.output is not None and is_folder_text(delivery.output)
    for path in paths:
        check_output(path, frames=frames, force=delivery.force, make_folder=make)
        check_limits(format_of(path), request.width, request.height, request.fps)
    if delivery.preview is not None:
        naming.check_preview(delivery.preview, delivery.paths, force=delivery.force)


def _planned(request: Request, delivery: Delivery) -> dict[str, Any]:
    """What would be done. Raises SoraError memory_too_small and device_unavailable."""
    from sora_cli.engine.render import plan

    planned = plan(request, delivery.paths[0], delivery.preview)
    if request.device not in ("auto", "cpu"):  # those are always there, and torch is slow to import
        from sora_cli.engine.devices import choose_device

        choose_device(request.device)
    return planned


def _render(pieces: list[Piece], delivery: Delivery, asked: dict[str, Any], console: Console) -> None:
    """Makes each result. When one is stopped, the others wait for `sora resume`."""
    how = {"force": delivery.force, "embed_metadata": delivery.embed_metadata}
    results: list[Result] = []
    with naming.made_folder(delivery.output):
        try:
            for piece in pieces:
                results.append(_made(piece, delivery.preview, console, how))
        except BaseException as error:
            later = [piece for piece in pieces[len(results) + 1 :] if piece.stopped is None]
            if resume_hint(error) is not None:
                from sora_cli.engine.render import put_off

                put_off([piece.request for piece in later], [piece.path for piece in later], **how)
            raise
    console.result(merge(results), command=asked["command"], seed=asked["seed"], request=asked)


def _made(piece: Piece, preview: Path | None, console: Console, how: dict[str, bool]) -> Result:
    """The result, from its beginning or from where it was stopped."""
    if piece.stopped is not None:
        from sora_cli.engine.render import go_on

        return go_on(piece.stopped, console, piece.path, force=how["force"])
    from sora_cli.engine.render import render

    return render(piece.request, output=piece.path, preview=preview, progress=console, **how)
