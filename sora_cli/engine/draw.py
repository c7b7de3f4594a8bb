"""From a film to latents on disk: every board drawn level by level, from wherever an earlier run stopped."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from PIL.Image import Image, fromarray
from torch import Tensor

from sora_cli.engine.backbones import Condition, DioramaBackbone
from sora_cli.engine.boards import Given
from sora_cli.engine.canvas import Canvas, Level
from sora_cli.engine.checkpoint import Checkpoint, Mark, Point
from sora_cli.engine.clock import Clock
from sora_cli.engine.conditions import conditions
from sora_cli.engine.courses import plan_course
from sora_cli.engine.devices import Precision, choose_device, choose_precision
from sora_cli.engine.footage import Source, encoded, fitted, given_frames, mask_latents, open_sources, place
from sora_cli.engine.job import Job, LatentFile
from sora_cli.engine.networks import Autoencoder, check_parts, load_backbone, load_picture_encoder, load_vae
from sora_cli.engine.pipeline import (
    Conditioning,
    Kept,
    Sampler,
    Stage,
    denoise_level,
    encode_texts,
    encode_words,
    enlarge,
    find_poses,
    holding,
    preview,
    scheduler_of,
    stages,
)
from sora_cli.engine.recognition import recognised
from sora_cli.engine.sample import Step
from sora_cli.engine.work import LARGER_MODELS, Work, drawn_inside
from sora_cli.machine import give_back_memory
from sora_cli.media.picture import read_picture
from sora_cli.model.tracing import Pose
from sora_cli.model.vae.patch import PatchVAE
from sora_cli.settings import folders

POSE = (len(fields(Pose)), 1, 1)  # the numbers of a pose, as if they were latents
PREVIEW_SECONDS = 1.0  # at most one preview in so many

Going = Literal["planned", "found", "held"]
"""How the figure of a board goes on: as is planned, as the draft has it, or not at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Studio:
    """The work on one machine: its folder and where it stands, device ("cpu", "cuda", "mps") and precision, the
    autoencoder and the sources, open; a picture of the work in progress is kept at `preview`.
    """

    work: Work
    job: Job
    checkpoint: Checkpoint
    point: Point | None
    device: str
    precision: Precision
    vae: Autoencoder
    sources: list[Source]
    clock: Clock
    preview: Path | None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Tell the user now, and keep it for the result."""
        self.clock.progress.note(text)
        self.notes.append(text)


def open_studio(work: Work, job: Job, clock: Clock, preview: Path | None, opened: ExitStack) -> Studio:
    """Load what all of the work needs; `opened` closes the sources.

    Raises SoraError("device_unavailable"), those of the sources, and WeightsError("bad_weights").
    """
    with clock.stage("load"):
        device = choose_device(work.request.device)
        precision = choose_precision(work.request.dtype, device, work.model)
        check_parts(work.model)
        scheduler_of(work.model, work.flow)  # which refuses one that we don't have
        sources = open_sources(work.request, opened)
        checkpoint = Checkpoint(job.folder)
        vae = load_vae(work.model, device, precision)
        return Studio(work, job, checkpoint, checkpoint.load(), device, precision, vae, sources, clock, preview)


def draw(studio: Studio) -> list[LatentFile]:
    """The latents of every board at its last level, in the job's folder; what an earlier run has drawn is taken."""
    work, boards = studio.work, range(len(studio.work.canvases))
    if all(all(work.known(board)) for board in boards):
        return [_given(studio, board) for board in boards]
    mark = Mark(0, 0) if studio.point is None else studio.point.mark
    if mark.board < len(boards):
        sampler = _sampler(studio)
        for board in range(mark.board, len(boards)):
            _draw_board(studio, sampler, board)
        del sampler
        give_back_memory()
        studio.checkpoint.save(Mark(len(boards), 0), {})
    return [_room(studio, board, len(_stages(studio, board)) - 1) for board in boards]


def _given(studio: Studio, board: int) -> LatentFile:
    """The latents of a board on which everything is given."""
    canvas, given = studio.work.canvases[board], studio.work.film.boards[board].given
    latents = _latent_file(studio, canvas, canvas.levels[-1], f"board{board}")
    _place(studio, given, canvas, canvas.levels[-1], latents)
    give_back_memory()
    return latents


def _draw_board(studio: Studio, sampler: Sampler, board: int) -> None:
    """Denoise the draft of a board and every level after it, or the last one alone where that holds what is given."""
    first, levels = _point_on(studio, board), _stages(studio, board)
    sampler, course = _going_on(studio, sampler, board)
    if course == "held":
        last, stage = len(levels) - 1, holding(levels, sampler.flow)
        _draw_level(studio, sampler, board, last, stage, first)
        return
    poses, planned = None, course == "planned"
    if planned or any(stage.rows for stage in levels[1:]):
        frames = studio.work.canvases[board].latent_frames
        poses = studio.job.latents(f"board{board}-poses", frames, POSE)
    for index, stage in enumerate(levels):
        if first is not None and index < first.mark.level:
            continue
        told = replace(sampler, poses=poses if index or planned else None)
        _draw_level(studio, told, board, index, stage, first if first and index == first.mark.level else None)
        if index == 0 and poses is not None and not planned:
            find_poses(sampler, stage.level, _room(studio, board, 0), poses)


def _going_on(studio: Studio, sampler: Sampler, board: int) -> tuple[Sampler, Going]:
    """The sampler for a board, and how its figure goes on. What the network doesn't know it can only hold.

    Beside given frames the memory of figures is relied on where it holds the one that they show, and where the words,
    if they name any, name that one; then the words need not name it.
    """
    model, drawn = studio.work.model, studio.work.film.boards[board]
    if not (model.figures and isinstance(sampler.backbone, DioramaBackbone)):
        return sampler, "found"
    named = sampler.backbone.named(sampler.words.prompt)
    sure = replace(sampler, reliance=studio.work.flow.reliance)
    course: Going = "found" if drawn.start else "planned"
    if not drawn.edges:
        return sure, "found" if named is None else course
    figure = _figure_on(studio, sampler.backbone, board, named)
    if figure is None:
        if drawn.start:
            return sampler, "found"
        studio.note(f"{model.name} doesn't know what the given frames show, and holds them; {LARGER_MODELS}")
        return sampler, "held"
    if named not in (None, figure):
        return sampler, "found"
    if named is None:
        name = model.figures[figure]
        studio.note(f"{model.name} sees this in the given frames, and goes on with it: {name}")
        prompt = f"{_one(name)} {studio.work.request.prompt}".strip()
        sure = replace(sure, words=_encoder(studio)(prompt, studio.work.request.negative))
    return sure, course


def _one(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _figure_on(studio: Studio, backbone: DioramaBackbone, board: int, told: int | None) -> int | None:
    """The number of the figure that the given frames beside what is drawn all show, which words may have `told`; None
    where there is no such.
    """
    work, canvas = studio.work, studio.work.canvases[board]
    level, fps = canvas.levels[0], float(work.request.fps)
    assert isinstance(studio.vae, PatchVAE)
    with studio.clock.stage("look"):
        names, cache = list(map(_one, work.model.figures)), folders()["cache"]
        texts = encode_texts(work.model, names, cache, studio.device, studio.precision)
        seen = set[int | None]()
        for edge in work.film.boards[board].edges:
            (frame,) = given_frames(studio.sources[edge.source], edge)
            (latent,) = encoded(studio.vae, iter([fitted(frame, canvas, level)]), 1, opening=True)
            seen.add(recognised(backbone, latent[:, :, None], level, fps, texts, told))
        return seen.pop() if len(seen) == 1 else None


def _point_on(studio: Studio, board: int) -> Point | None:
    """Where an earlier run stopped, if that was on this board."""
    return studio.point if studio.point is not None and studio.point.mark.board == board else None


def _draw_level(studio: Studio, sampler: Sampler, board: int, index: int, stage: Stage, point: Point | None) -> None:
    work, job = studio.work, studio.job
    canvas, known = work.canvases[board], work.known(board)
    give_back_memory()
    if point is None:
        start, latents = _begin(studio, sampler, board, index, stage)
    else:
        start, latents = _again(studio, board, index, stage)
    if index == 0 and sampler.poses is not None:  # also when work goes on: the same course follows from what is given
        plan_course(sampler, stage.level, latents, sampler.poses, known, studio.work.request.seed + board)
    kept = _kept(studio, canvas, stage.level, board)
    give_back_memory()
    how = "hold" if stage.holds else "refine" if index else "draft"
    name = how if how == "draft" else f"{how} {stage.level.width}x{stage.level.height}"
    if stage.rows:
        windows = work.windows(board, 0 if stage.holds else index)  # what is held is drawn as drafts are
        with studio.clock.stage(name, len(stage.rows) * windows):
            on_step = _reporter(studio, sampler, Mark(board, index), stage)
            denoise_level(sampler, stage, latents, start, on_step, known, kept, point)
    elif start is not None:
        _take_as_is(start, latents, known)
    if start is not None:
        job.drop(start)


def _take_as_is(start: LatentFile, latents: LatentFile, known: Sequence[bool]) -> None:
    """Fill what is not known with what a level starts from."""
    for index, there in enumerate(known):
        if not there:
            latents.write(index, start.read(index, index + 1))


def _begin(
    studio: Studio, sampler: Sampler, board: int, index: int, stage: Stage
) -> tuple[LatentFile | None, LatentFile]:
    """What a level starts from, if not from noise, and the room for its latents, with what is given there.

    Only when the level is ready to begin, and that is on disk, the one before is dropped.
    """
    canvas, drawn = studio.work.canvases[board], studio.work.film.boards[board]
    before = _room(studio, board, index - 1) if index and not stage.holds else None
    start = None
    if before is not None or drawn.start:
        start = _latent_file(studio, canvas, stage.level, _start_name(board, index))
    if start is not None and before is not None:
        assert isinstance(studio.vae, PatchVAE)  # only diorama is drafted small
        with studio.clock.stage("enlarge"):
            enlarge(studio.vae, before, stage.level, start)
    elif start is not None:
        _place(studio, drawn.start, canvas, stage.level, start)
    latents = _latent_file(studio, canvas, stage.level, _level_name(board, index))
    _place(studio, drawn.given, canvas, stage.level, latents)
    studio.checkpoint.save(Mark(board, index), {"level": sampler.generator.get_state()})
    if before is not None:
        studio.job.drop(before)
    return start, latents


def _again(studio: Studio, board: int, index: int, stage: Stage) -> tuple[LatentFile | None, LatentFile]:
    """The files of a level that an earlier run began."""
    canvas = studio.work.canvases[board]
    begun = (index > 0 and not stage.holds) or bool(studio.work.film.boards[board].start)
    start = _latent_file(studio, canvas, stage.level, _start_name(board, index)) if begun else None
    return start, _room(studio, board, index)


def _room(studio: Studio, board: int, index: int) -> LatentFile:
    """The file of a level's latents."""
    level = _stages(studio, board)[index].level
    return _latent_file(studio, studio.work.canvases[board], level, _level_name(board, index))


def _level_name(board: int, index: int) -> str:
    return f"board{board}-level{index}"


def _start_name(board: int, index: int) -> str:
    return f"board{board}-start{index}"


def _latent_file(studio: Studio, canvas: Canvas, level: Level, name: str) -> LatentFile:
    shape = (studio.work.model.specs.vae.channels, *level.latents(canvas.grid))
    return studio.job.latents(name, canvas.latent_frames, shape)


def _place(studio: Studio, stretches: Sequence[Given], canvas: Canvas, level: Level, latents: LatentFile) -> None:
    if stretches:
        with studio.clock.stage("encode"):
            place(studio.vae, stretches, studio.sources, canvas, level, latents)


def _kept(studio: Studio, canvas: Canvas, level: Level, board: int) -> Kept | None:
    """What stays as it is at a level, where a mask says so."""
    request = studio.work.request
    if request.mask is None:
        return None
    own = _latent_file(studio, canvas, level, f"kept{level.width}x{level.height}")
    _place(studio, studio.work.film.boards[board].start, canvas, level, own)
    return Kept(own, mask_latents(drawn_inside(request), canvas, level))


def _stages(studio: Studio, board: int) -> tuple[Stage, ...]:
    """How the levels of a board are denoised."""
    work = studio.work
    scheduler, strength = scheduler_of(work.model, work.flow), work.strength(board)
    return stages(
        work.canvases[board], work.flow, scheduler, work.request.steps, work.guidance, strength, refined=work.refined
    )


def _sampler(studio: Studio) -> Sampler:
    work, request = studio.work, studio.work.request
    with studio.clock.stage("text"):
        encode = _encoder(studio)
        words = encode(request.prompt, request.negative)
        towards = None if request.prompt_b is None else encode(request.prompt_b, request.negative)
    give_back_memory()
    generator = torch.Generator().manual_seed(request.seed)
    condition = _condition(studio, generator)
    with studio.clock.stage("load"):
        backbone = load_backbone(work.model, studio.device, studio.precision)
    mode: Literal["native", "pin"] = "native" if work.model.knows == "native" else "pin"
    fps = float(request.fps)
    return Sampler(backbone, words, work.model.grid, fps, work.flow, generator, condition, mode, towards)


def _encoder(studio: Studio) -> Callable[[str, str], Conditioning]:
    """What encodes a prompt and a negative one."""
    model, cache = studio.work.model, folders()["cache"]
    return partial(encode_words, model, cache=cache, device=studio.device, precision=studio.precision)


def _condition(studio: Studio, generator: torch.Generator) -> Condition | None:
    """What the network is shown of the known pictures, where there are any."""
    work = studio.work
    if work.request.image is None or work.model.knows != "channels":
        return None
    with studio.clock.stage("pictures"):
        pictures = {0: _picture(work, work.request.image)}
        if work.request.last is not None:
            pictures[work.request.frames - 1] = _picture(work, work.request.last)
        features = _features(studio, list(pictures.values()))
        return conditions(studio.vae, pictures, work.canvases[0], features, generator)


def _picture(work: Work, path: str) -> Image:
    return read_picture(Path(path), work.request.width, work.request.height)


def _features(studio: Studio, pictures: list[Image]) -> Tensor | None:
    """What the model's picture encoder makes of the pictures, one after the other; None where it has none."""
    if "image" not in studio.work.model.parts:
        return None
    encode = load_picture_encoder(studio.work.model, studio.device, studio.precision)
    return torch.cat([encode(picture) for picture in pictures], 1)


def _reporter(studio: Studio, sampler: Sampler, level: Mark, stage: Stage) -> Callable[[int, Step, Tensor], None]:
    """Tells of every step, keeps it on disk, and a picture of it now and then."""
    shown = 0.0

    def on_step(window: int, step: Step, began: Tensor) -> None:
        nonlocal shown
        studio.clock.progress.step(window * len(stage.rows) + step.done)
        mark = Mark(level.board, level.level, window, step.done)
        last = step.done == step.total
        studio.checkpoint.save_step(mark, step, began, sampler.generator, last=last)
        if studio.preview is not None and time.monotonic() - shown >= PREVIEW_SECONDS:
            tile = studio.work.memory.tile_side
            _save_preview(preview(studio.vae, step.x0, tile, studio.job.folder), studio.preview)
            shown = time.monotonic()

    return on_step


def _save_preview(frame: Tensor, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    picture = ((frame + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    try:
        fromarray(picture).save(part, format="PNG")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
