"""A request with everything that follows from it before any tensor is made: film, canvases, memory plan."""

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.engine.boards import Film
from sora_cli.engine.canvas import Canvas, Draft, draft_of, lay_out, levels_from, steps_from
from sora_cli.engine.films import film_of
from sora_cli.engine.memory import Media, MemoryPlan, footprint_of, plan_memory
from sora_cli.engine.reel import spans
from sora_cli.engine.timing import retimed_count
from sora_cli.engine.vocabulary import count_tokens, scene_for, split_style, unknown_words
from sora_cli.errors import SoraError
from sora_cli.media.editing import lossless_look
from sora_cli.media.held import read_size, written_size
from sora_cli.media.picture import read_mask
from sora_cli.media.planes import chroma_grain
from sora_cli.media.probe import Probe, probe
from sora_cli.request import MAX_TEXT, Request
from sora_weights.families import FAMILIES
from sora_weights.registry import check_sums, find_model
from sora_weights.spec import WHOLE, CogVideoXSpec, FlowSpec, Model, WanSpec

if TYPE_CHECKING:
    import numpy as np

LARGER_MODELS = "larger open models such as Wan 2.1 and CogVideoX know far more words"


@dataclass(frozen=True, slots=True)
class Work:
    """A request, its model, what is to be drawn on which canvases (one for each board), and the memory plan.

    `asked` is the request as it came; `request` is what is drawn for it: of a draft, the small size, of a prompt that
    asks for a `style` to be painted over that, the rest, and with a `scene` where it says none. `disk` are the bytes of
    latents that all canvases take.
    """

    asked: Request
    request: Request
    model: Model
    film: Film
    canvases: tuple[Canvas, ...]
    memory: MemoryPlan
    disk: int
    style: str | None = None
    scene: str | None = None

    @property
    def flow(self) -> FlowSpec:
        """How the model's family is sampled."""
        return FAMILIES[self.model.family].flow

    @property
    def guidance(self) -> float:
        """How far guidance goes; 1 is none, and published models know nothing below it."""
        asked = self.request.guidance
        return asked if self.model.scheduler is None else max(asked, 1.0)

    def known(self, board: int) -> tuple[bool, ...]:
        """Which latent frames of a board are given."""
        return self.film.boards[board].known(self.model.grid)

    @property
    def refined(self) -> bool:
        """Whether enlarged levels are refined: frames beside a clip must have its size, also in a draft."""
        return not self.asked.draft

    def strength(self, board: int) -> float:
        """The noise level that drawing a board starts at; 1 is noise alone."""
        asked = self.request.strength if self.film.boards[board].start else None
        return 1.0 if asked is None else asked

    @property
    def repaints(self) -> bool:
        """Whether a style is all that a clip is to be changed by."""
        return self.style is not None and self.request.command == "edit" and self.request.strength == 0

    @property
    def repairs(self) -> bool:
        """Whether the words are those that the clip was made with, so that it is to show what it showed."""
        return self.request.clip is not None and self.asked.prompt == own_prompt(self.request.clip)

    def windows(self, board: int, level: int) -> int:
        """Windows in time at a level of a board."""
        context = self.flow.context if level == 0 else self.flow.refine_context
        return len(spans(self.canvases[board].latent_frames, self.flow.window, context, self.known(board)))


def prepare(request: Request, output: Path, preview: Path | None) -> Work:
    """Lay out the canvases and plan the memory for a result that is written to `output`, with a `preview` or without.

    Raises SoraError (memory_too_small, bad_usage, those of the sources) and WeightsError("bad_weights") for files that
    are not what was recorded.
    """
    model = find_model(request.model)
    check_sums(model)
    _check_pictures(request, model)
    if request.mask is not None:
        drawn_inside(request)
    flow = FAMILIES[model.family].flow
    asked, draft = request, _draft(request, model, flow)
    if draft is not None and request.draft:
        request = replace(request, width=draft.size[0], height=draft.size[1])
    style, request = _style(request, flow)
    scene = scene_for(request.prompt, model, request.seed) if request.command == "generate" else None
    if scene is not None:
        request = replace(request, prompt=f"{request.prompt} {scene}")
    film = film_of(
        request, [retimed_count(probed(path), request.fps) for path in request.sources], model.grid, model.knows
    )
    canvases = tuple(
        draft.canvas(board.frames, model.grid)
        if draft is not None and request.draft
        else lay_out(request.width, request.height, board.frames, model.grid, flow.native_area, draft)
        for board in film.boards
    )
    footprint = footprint_of(model)
    media = replace(_media(request, film, output), preview=preview is not None)
    drawn = not all(all(board.known(model.grid)) for board in film.boards)
    plans = [plan_memory(canvas, flow, footprint, request.memory, media, drawn=drawn) for canvas in canvases]
    worst, disk = max(plans, key=lambda plan: plan.peak), sum(plan.disk for plan in plans)
    return Work(asked, request, model, film, canvases, worst, disk, style, scene)


def _style(request: Request, flow: FlowSpec) -> tuple[str | None, Request]:
    """The style that is to be painted over all that a request draws, and the request without its name. A clip of which
    nothing else is asked is not drawn at all.
    """
    style, prompt = split_style(request.prompt)
    if style is None or not flow.paints or (request.command == "generate" and not prompt):
        return None, request
    strength = 0.0 if request.command == "edit" and request.mask is None and not prompt else request.strength
    return style if _paintable(request) else None, replace(request, prompt=prompt, strength=strength)


def _paintable(request: Request) -> bool:
    """Whether all frames of a result are drawn: beside a clip's own ones a style would be seen to begin."""
    return request.command == "generate" or (request.command == "edit" and request.mask is None)


def _draft(request: Request, model: Model, flow: FlowSpec) -> Draft | None:
    """The draft that is asked for, or that a request is the final of; commands on clips keep the clip's size.

    Raises SoraError("bad_usage") for a model that draws at the final size alone, and a final smaller than its draft.
    """
    if request.draft and flow.native_area == WHOLE**2:
        raise SoraError("bad_usage", f"--draft with {model.name}", "it has no drafts; a small --size is quick too")
    size = (request.width, request.height) if request.draft else request.composed
    if size is None or request.clip is not None:
        return None
    draft = draft_of(*size, model.grid, flow.native_area)
    if not request.draft and (request.width < draft.width or request.height < draft.height):
        larger = "{}x{} or more".format(*draft.size)
        raise SoraError("bad_usage", f"--size {request.width}x{request.height}", f"a draft becomes larger: {larger}")
    return draft


def _media(request: Request, film: Film, output: Path) -> Media:
    """What reading the sources and writing the output hold; of two clips both are read at once where they overlap."""
    sources = [probed(path) for path in request.sources]
    together = sum if request.mode == "blend" else max
    read = together([read_size(source) for source in sources] or [0])
    like = None if request.clip is None else probed(request.clip)
    written = written_size(output, request.width * request.height, like)
    masked = request.mask is not None
    joined, beside = masked or len(film.output) > 1, masked or request.command == "reconstruct"
    return Media(read, written, joined=joined, beside=beside, masked=masked)


def drawn_inside(request: Request) -> "np.ndarray":
    """Where a request with a mask draws, bool (H, W): its mask, grown to whole chroma samples of its clip.

    Raises what `read_mask` raises.
    """
    assert request.mask is not None
    assert request.clip is not None
    look, _ = lossless_look(probed(request.clip))
    return read_mask(Path(request.mask), request.width, request.height, chroma_grain(look.pixel_format))


def probed(path: str) -> Probe:
    """What a source holds, read once for as long as the file stays the same. Raises what `probe` raises."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return probe(path)  # which says what is wrong, or reads a numbered sequence
    return _probed(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=16)
def _probed(path: str, _size: int, _time: int) -> Probe:
    return probe(path)


def recorded(path: str, name: str) -> Any:
    """A field of the request that a file was made with, unchecked; None where its metadata tell none."""
    request = (probed(path).metadata or {}).get("request")
    return request.get(name) if isinstance(request, dict) else None


def own_prompt(path: str) -> str | None:
    """The prompt that a file was made with, as far as its metadata can be believed."""
    prompt = recorded(path, "prompt")
    return prompt if isinstance(prompt, str) and len(prompt) <= MAX_TEXT else None


def _check_pictures(request: Request, model: Model) -> None:
    """Raise SoraError("bad_usage") for pictures that the model can't be shown."""
    if request.image is None or model.knows != "channels":
        return
    if request.last is not None and not takes_last(model):
        raise SoraError("bad_usage", f"--last with {model.name}", "this model takes one picture, the first")
    learned = isinstance(model.specs.dit, CogVideoXSpec) and model.specs.dit.learned
    if learned and (request.width, request.height) != (model.defaults.width, model.defaults.height):
        sizes = f"{model.defaults.width}x{model.defaults.height}"
        raise SoraError("bad_usage", f"--size {request.width}x{request.height}", f"this model draws {sizes} alone")


def takes_last(model: Model) -> bool:
    """Whether the model was trained on a first and a last picture."""
    return isinstance(model.specs.dit, WanSpec) and model.specs.dit.image_tokens is not None


def notes_of(work: Work) -> tuple[str, ...]:
    """What the user must know of a prompt: words that the model was never taught, and what does not fit; and of clips
    how a model that was not made for them is told of them.
    """
    model, request = work.model, work.request
    notes = []
    if request.prompt and (unknown := ", ".join(unknown_words(request.prompt, model.vocabulary))):
        notes.append(f"{model.name} was never taught: {unknown}; this is its best guess, {LARGER_MODELS}")
    if work.scene is not None:
        notes.append(f"the prompt says no scene: {model.name} drew lots by the seed, and takes {work.scene!r}")
    notes += _style_notes(work)
    for name, text in (("prompt", request.prompt), ("--negative", request.negative)):
        tokens, most = count_tokens(model, text), model.specs.text.tokens
        if tokens > most:
            notes.append(f"{name}: {model.name} reads {most} tokens; the last {tokens - most} of {tokens} are cut")
    notes += [f"{path}: what is transparent is shown over black" for path in _pictures(request) if _see_through(path)]
    if work.asked.draft and request.command == "generate":
        notes.append(f"a draft, {request.width}x{request.height}; sora generate --from it with --size makes it large")
    known = request.mask is not None or any(any(work.known(board)) for board in range(len(work.film.boards)))
    if known and model.knows == "pin" and request.command != "reconstruct":
        notes.append(f"{model.name} was not trained to know frames: they are pinned at every step")
    return tuple(notes)


def _style_notes(work: Work) -> list[str]:
    """What becomes of a style that the prompt asks for."""
    if work.repaints:
        return [f"{work.style}: the clip's own frames are painted; nothing is drawn, so --strength doesn't matter"]
    if work.style is not None:
        return [f"{work.style}: painted over what {work.model.name} draws"]
    asked = split_style(work.asked.prompt)[0] if work.flow.paints and work.request.prompt != work.asked.prompt else None
    if asked is None or work.repairs:
        return []
    return [f"{asked}: styles are painted over all frames, by generate and edit without --mask alone"]


def _pictures(request: Request) -> list[str]:
    """The pictures that a video begins and ends with."""
    return [path for path in (request.image, request.last) if path is not None]


def _see_through(path: str) -> bool:
    return probed(path).has_alpha


def plan(request: Request, output: Path, preview: Path | None) -> dict[str, Any]:
    """What `--dry-run` tells: levels, latents, windows, steps, bytes of memory and disk. Nothing is sampled."""
    work = prepare(request, output, preview)
    return {
        "model": work.model.name,
        "frames": work.film.frames,
        "levels": [level for board in range(len(work.canvases)) for level in _levels(work, board)],
        "memory": {
            "peak_bytes": work.memory.peak,
            "disk_bytes": work.disk,
            "tile": work.memory.tile_side * work.model.grid.space,
        },
    }


def _levels(work: Work, board: int) -> list[dict[str, Any]]:
    canvas, strength = work.canvases[board], work.strength(board)
    return [
        {
            "width": level.width,
            "height": level.height,
            "latents": [canvas.latent_frames, *level.latents(canvas.grid)],
            "windows": work.windows(board, index),
            "steps": _steps(work, index, strength) * work.windows(board, index),
        }
        for index, level in enumerate(levels_from(canvas.levels, strength, work.flow.composed))
    ]


def _steps(work: Work, level: int, strength: float) -> int:
    """Steps in each window of a level."""
    if level == 0:
        return steps_from(work.request.steps, strength)
    return work.flow.refinement(level)[1] if work.refined else 0
