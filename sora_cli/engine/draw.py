"""From a film to latents on disk: every board drawn level by level, from wherever an earlier run stopped."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from PIL.Image import Image, fromarray
from torch import Tensor

from sora_cli.engine.backbones import Condition, DioramaBackbone
from sora_cli.engine.canvas import Level
from sora_cli.engine.checkpoint import Mark, Point
from sora_cli.engine.company import give_rooms, in_view
from sora_cli.engine.conditions import conditions
from sora_cli.engine.courses import plan_camera, plan_course
from sora_cli.engine.going_on import going_on
from sora_cli.engine.job import LatentFile
from sora_cli.engine.networks import load_backbone, load_picture_encoder
from sora_cli.engine.pipeline import (
    Conditioning,
    Sampler,
    Stage,
    clearing,
    denoise_level,
    enlarge,
    find_poses,
    holding,
    preview,
)
from sora_cli.engine.retouching import note_cast
from sora_cli.engine.sample import Step
from sora_cli.engine.studio import (
    Studio,
    camera_file,
    encoder_of,
    kept_at,
    latent_file,
    place_given,
    poses_file,
    stages_of,
)
from sora_cli.engine.work import Work
from sora_cli.machine import give_back_memory
from sora_cli.media.picture import read_picture
from sora_cli.model.tracing import Pose
from sora_cli.model.vae.patch import PatchVAE

OTHER = 100_003  # how far apart the seeds of courses are for the figures of one picture
PREVIEW_SECONDS = 1.0  # at most one preview in so many


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
    return [_room(studio, board, len(stages_of(studio, board)) - 1) for board in boards]


def _given(studio: Studio, board: int) -> LatentFile:
    """The latents of a board on which everything is given."""
    canvas, given = studio.work.canvases[board], studio.work.film.boards[board].given
    latents = latent_file(studio, canvas, canvas.levels[-1], f"board{board}")
    place_given(studio, given, canvas, canvas.levels[-1], latents)
    give_back_memory()
    return latents


def _draw_board(studio: Studio, sampler: Sampler, board: int) -> None:
    """Denoise the draft of a board and every level after it, or the last one alone where that holds what is given."""
    first, levels = _point_on(studio, board), stages_of(studio, board)
    alone = not studio.work.film.boards[board].start and not any(studio.work.known(board))
    if alone and isinstance(sampler.backbone, DioramaBackbone):
        sampler = replace(sampler, camera=camera_file(studio, board))
    going = going_on(studio, sampler, board)
    sampler, course = going.sampler, going.course
    if course == "held":
        last, stage = len(levels) - 1, holding(levels, sampler.flow)
        stage = stage if going.cleared is None else clearing(stage, going.cleared)
        _draw_level(studio, sampler, board, last, stage, first)
        return
    told = course in ("planned", "told")
    poses = poses_file(studio, board) if told or any(stage.rows for stage in levels[1:]) else None
    if going.cleared is not None:
        levels = (clearing(levels[0], going.cleared), *levels[1:])
    for index, stage in enumerate(levels):
        if first is not None and index < first.mark.level:
            continue
        posed = replace(sampler, poses=poses if index or told else None)
        point = first if first and index == first.mark.level else None
        _draw_level(studio, posed, board, index, stage, point, plans=index == 0 and course == "planned")
        if index == 0 and poses is not None and not told:
            find_poses(sampler, stage.level, _room(studio, board, 0), poses)
    if told:
        note_cast(studio, replace(sampler, poses=poses), board)


def _point_on(studio: Studio, board: int) -> Point | None:
    """Where an earlier run stopped, if that was on this board."""
    return studio.point if studio.point is not None and studio.point.mark.board == board else None


def _draw_level(
    studio: Studio,
    sampler: Sampler,
    board: int,
    index: int,
    stage: Stage,
    point: Point | None,
    *,
    plans: bool = False,
) -> None:
    """Denoise a level, from a `point` on if there is one; before the first one it `plans` where figures go, and how a
    camera sees them that is to be told of.
    """
    work, job = studio.work, studio.job
    canvas, known = work.canvases[board], work.known(board)
    give_back_memory()
    if point is None:
        start, latents = _begin(studio, sampler, board, index, stage)
    else:
        start, latents = _again(studio, board, index, stage)
    seed = work.request.seed + board
    if index == 0:
        _plan(sampler, stage.level, latents, known, seed, plans=plans)
    kept = kept_at(studio, canvas, stage.level, board)
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


def _plan(
    sampler: Sampler, level: Level, latents: LatentFile, known: Sequence[bool], seed: int, *, plans: bool
) -> None:
    """Write where figures go, where that is what is wanted (also when work goes on: the same courses follow from what
    is given), and how a camera sees them that the network is to be told of.

    Courses are planned for a camera at rest, and then seen by the one that words move. Several figures have parts of
    the picture of their own.
    """
    members = sampler.cast if plans else ()
    for number, member in enumerate(members):
        said = Conditioning(member.text, sampler.words.negative) if sampler.company else sampler.words
        plan_course(
            replace(sampler, words=said), level, latents, member.poses, known, seed + OTHER * number, member.seen_in
        )
    if sampler.company and plans and not any(known):
        give_rooms([member.poses for member in members], level, meeting=any(member.meeting for member in members))
    if sampler.camera is not None:
        camera = plan_camera(sampler, level, latents.frames, seed)
        for member in members:
            pose = Pose.of(member.poses.read(0, latents.frames))
            member.poses.write(0, in_view(pose, camera, level).numbers())
        sampler.camera.write(0, camera[:, :4, :, None, None])


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
        start = latent_file(studio, canvas, stage.level, _start_name(board, index))
    if start is not None and before is not None:
        assert isinstance(studio.vae, PatchVAE)  # only diorama is drafted small
        with studio.clock.stage("enlarge"):
            enlarge(studio.vae, before, stage.level, start)
    elif start is not None:
        hole = None if stage.cleared is None else stage.cleared.hole
        place_given(studio, drawn.start, canvas, stage.level, start, hole)
    latents = latent_file(studio, canvas, stage.level, _level_name(board, index))
    place_given(studio, drawn.given, canvas, stage.level, latents)
    studio.checkpoint.save(Mark(board, index), {"level": sampler.generator.get_state()})
    if before is not None:
        studio.job.drop(before)
    return start, latents


def _again(studio: Studio, board: int, index: int, stage: Stage) -> tuple[LatentFile | None, LatentFile]:
    """The files of a level that an earlier run began."""
    canvas = studio.work.canvases[board]
    begun = (index > 0 and not stage.holds) or bool(studio.work.film.boards[board].start)
    start = latent_file(studio, canvas, stage.level, _start_name(board, index)) if begun else None
    return start, _room(studio, board, index)


def _room(studio: Studio, board: int, index: int) -> LatentFile:
    """The file of a level's latents."""
    level = stages_of(studio, board)[index].level
    return latent_file(studio, studio.work.canvases[board], level, _level_name(board, index))


def _level_name(board: int, index: int) -> str:
    return f"board{board}-level{index}"


def _start_name(board: int, index: int) -> str:
    return f"board{board}-start{index}"


def _sampler(studio: Studio) -> Sampler:
    work, request = studio.work, studio.work.request
    with studio.clock.stage("text"):
        encode = encoder_of(studio)
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
