"""How the figure of a board goes on from what is given: who it is, where it stands, and which words say so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sora_cli.engine.backbones import Backbone, DioramaBackbone, Text
from sora_cli.engine.boards import Given
from sora_cli.engine.canvas import Level
from sora_cli.engine.company import count_in, nouns_of, parts_of, parts_of_picture, prompts_of
from sora_cli.engine.courses import plan_course
from sora_cli.engine.filming import split_camera
from sora_cli.engine.footage import encoded, fitted, given_frames
from sora_cli.engine.inside import covered, put_inside
from sora_cli.engine.pipeline import Clearing, Member, Sampler
from sora_cli.engine.recognition import recognised, scene_of, seen_in
from sora_cli.engine.studio import (
    Studio,
    encoder_of,
    kept_at,
    latent_file,
    mask_at,
    place_given,
    poses_file,
    stages_of,
    texts_of,
)
from sora_cli.engine.vocabulary import says_one_of
from sora_cli.engine.work import LARGER_MODELS
from sora_cli.model.dit import seconds_of
from sora_cli.model.tracing import BARE, Pose
from sora_cli.model.vae.patch import PatchVAE

Course = Literal["planned", "found", "told", "held"]
"""How the figure of a board goes on: as is planned, as the draft has it, as poses say that are there, or not at all."""

UNKNOWN = "{} doesn't know what the given frames show, and {}; " + LARGER_MODELS
SWAPPED = 0.5  # noise level above which a clip that is drawn over gives up its figure for one that words name
CUT = 0.02  # share of a figure that is seen outside a mask, at least, where that is taken for one that cuts the figure


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What a given frame shows: its latents (1, c, 1, h, w) at a level, and the number of its figure, if known."""

    level: Level
    latents: Tensor
    figure: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Going:
    """The sampler for a board, how its figure goes on, and what drawing begins with where a clip is cleared first."""

    sampler: Sampler
    course: Course
    cleared: Clearing | None = None


def going_on(studio: Studio, sampler: Sampler, board: int) -> Going:
    """How drawing a board goes on from what is given. What the network doesn't know it can only hold.

    Beside given frames the memory of figures is relied on where it holds the one that they show, and where the words,
    if they name any, name that one; then the words need not name it.
    """
    model, drawn = studio.work.model, studio.work.film.boards[board]
    if not (model.figures and isinstance(sampler.backbone, DioramaBackbone)):
        return Going(sampler, "found")
    named, strength = sampler.backbone.named(sampler.said), studio.work.strength(board)
    sure = replace(sampler, reliance=studio.work.flow.reliance)
    request = studio.work.request
    if request.mask is not None and (strength == 1 or (strength > SWAPPED and named is not None)):
        return _inside(studio, sure, board)
    if request.command == "edit" and request.mask is None and named is not None and SWAPPED < strength < 1:
        return _swapped(studio, sure, board, named)
    course: Course = "found" if drawn.start else "planned"
    if not drawn.start and sampler.towards is None and (together := _together(studio, sure, board)):
        return Going(together, course)
    if not drawn.edges:
        return Going(sure, "found" if named is None else course)
    sights = list(_sights(studio, sampler.backbone, board, drawn.edges, named))
    figures = {sight.figure for sight in sights}
    figure = figures.pop() if len(figures) == 1 else None
    if figure is None:
        if drawn.start:
            return Going(sampler, "found")
        studio.note(UNKNOWN.format(model.name, "holds them"))
        return Going(sampler, "held")
    if named not in (None, figure):
        return Going(sampler, "found")
    going, shown = _saying(studio, sure, figure, _scene_in(studio, sampler.backbone, sights))
    _tell(studio, shown)
    return Going(going, course)


def _together(studio: Studio, sampler: Sampler, board: int) -> Sampler | None:
    """The sampler for several figures, if the words name several and all given frames show all of them.

    What is said of the scene is all that the network is told in words: of one of the names it would draw another such
    figure, as large as figures are that are alone.
    """
    assert isinstance(sampler.backbone, DioramaBackbone)
    prompt = studio.work.request.prompt
    company, scenery = _company(
        studio, sampler.backbone, board, prompt if sampler.camera is None else split_camera(prompt)[1]
    )
    if company and studio.work.film.boards[board].edges:
        company, scene = _seen(studio, sampler.backbone, board, company)
        if company and scene:
            _tell(studio, [scene])
            scenery = f"{scenery} {scene}".strip()
    if not company:
        return None
    words = encoder_of(studio)(scenery, studio.work.request.negative) if scenery else sampler.words
    return replace(sampler, words=replace(words, filming=sampler.words.filming), company=company)


def _company(studio: Studio, backbone: DioramaBackbone, board: int, prompt: str) -> tuple[tuple[Member, ...], str]:
    """The figures that a prompt names, if it names several, each with words of its own; and what is said of all."""
    model, parts = studio.work.model, parts_of(prompt)
    several = any(count_in(part.split()) > 1 for _, part in parts)
    if (len(parts) < 2 and not several) or model.vocabulary is None:
        return (), ""
    nouns = nouns_of(parts, model.vocabulary, chain.from_iterable(model.scenes))
    if len(nouns) < 2 and not several:
        return (), ""
    told = prompts_of(parts, dict(zip(nouns, _named(backbone, texts_of(studio, nouns)), strict=True)))
    if not told.prompts:
        return (), ""
    texts = texts_of(studio, list(told.prompts))
    if _named(backbone, texts) != list(told.figures):  # a word by itself says another figure than beside others
        return (), ""
    members = (
        Member((features[None], seen[None]), poses_file(studio, board, number), meeting=told.meeting)
        for number, (features, seen) in enumerate(zip(*texts, strict=True))
    )
    return tuple(members), told.scenery


def _named(backbone: DioramaBackbone, texts: Text) -> list[int | None]:
    """Which figure each of some texts names."""
    return [backbone.named((features[None], seen[None])) for features, seen in zip(*texts, strict=True)]


def _seen(
    studio: Studio, backbone: DioramaBackbone, board: int, company: Sequence[Member]
) -> tuple[tuple[Member, ...], str | None]:
    """Figures with the part of the picture in which all given frames show them, and the scene that these have, where
    words say none; nobody, where one of them is not to be seen, or two where there is one.
    """
    level, fps = studio.work.canvases[board].levels[0], float(studio.work.request.fps)
    frames = list(_latents_of(studio, board, studio.work.film.boards[board].edges))
    parts = parts_of_picture(level.latents(studio.work.model.grid)[1], len(company))
    with studio.clock.stage("look"):
        found = [seen_in(backbone, frames, level, fps, member.text, parts) for member in company]
    if None in found or any(found.count(part) > 1 for part in found):
        return (), None
    figure = backbone.named(company[0].text)
    scene = _scene_in(studio, backbone, [Sight(level, frame, figure) for frame in frames])
    return tuple(replace(member, seen_in=part) for member, part in zip(company, found, strict=True) if part), scene


def _swapped(studio: Studio, sampler: Sampler, board: int, named: int) -> Going:
    """Where a clip is drawn over that shows another figure than words have `named`: this stands where that did and goes
    as it went, and begins with what is around that.
    """
    assert isinstance(sampler.backbone, DioramaBackbone)
    canvas, level, poses = studio.work.canvases[board], stages_of(studio, board)[0].level, poses_file(studio, board)
    sights = _sights(studio, sampler.backbone, board, _looked_at(studio, board), None)
    sight = next((each for each in sights if each.figure is not None), None)
    if sight is None or sight.figure is None or sight.figure == named:
        return Going(sampler, "found")
    own = latent_file(studio, canvas, level, f"given{level.width}x{level.height}")
    place_given(studio, studio.work.film.boards[board].start, canvas, level, own)
    shown = replace(sampler, words=encoder_of(studio)(_one(studio.work.model.figures[sight.figure]), ""))
    plan_course(shown, level, own, poses, [True] * poses.frames, studio.work.request.seed + board)
    _, most = covered(shown, level, poses)
    studio.job.drop(own)
    pose = Pose.of(poses.read(0, poses.frames))
    seconds = seconds_of(0, poses.frames, sampler.fps, sampler.grid.time)
    poses.write(0, replace(pose, moment=seconds[None]).numbers())
    going, seen = _saying(studio, sampler, None, _scene_in(studio, sampler.backbone, [sight]))
    _tell(studio, seen)
    return Going(replace(going, poses=poses), "told", Clearing(_around(most), 1.0))


def _looked_at(studio: Studio, board: int) -> list[Given]:
    """Three frames of the clip that drawing a board starts from."""
    start, last = studio.work.film.boards[board].start[0], studio.work.film.frames - 1
    return [replace(start, first=at, count=1) for at in dict.fromkeys((0, last // 2, last))]


def _around(most: Tensor) -> Tensor:
    """Where a figure is or its shadow may be, (h, w), that covers latents at `most` so much."""
    return F.max_pool2d((most > BARE).float()[None], 3, 1, 1)[0]


def _inside(studio: Studio, sampler: Sampler, board: int) -> Going:
    """What is inside a mask: the figure that the clip shows, where the mask cuts it or the words name it; else one that
    the words put there; or none, and only scenery.
    """
    assert isinstance(sampler.backbone, DioramaBackbone)
    work, canvas = studio.work, studio.work.canvases[board]
    level, seed, poses = stages_of(studio, board)[0].level, work.request.seed + board, poses_file(studio, board)
    kept, named = kept_at(studio, canvas, level, board), sampler.backbone.named(sampler.said)
    assert kept is not None
    looked = _looked_at(studio, board)
    tries = (_sights(studio, sampler.backbone, board, looked, told) for told in dict.fromkeys((None, named)))
    sight = next((each for each in chain.from_iterable(tries) if each.figure is not None), None)
    figure = None if sight is None else sight.figure
    scene = None if sight is None else _scene_in(studio, sampler.backbone, [sight])
    going, shown = _saying(studio, sampler, figure, scene)
    hole = kept.inside
    if hole.min() > 0:  # nothing is to stay
        _tell(studio, shown)
        return Going(going, "found")
    if figure is None and named is None:
        return _held_around(studio, sampler, board)
    scenery, seen = _saying(studio, sampler, None, scene)
    if figure is not None and named in (None, figure):
        plan_course(going, level, kept.latents, poses, [True] * poses.frames, seed)
        cover, most = covered(going, level, poses)
        share = float((cover * (1 - hole)).sum() / cover.sum().clamp(min=1e-6))
        apart = share > 1 - CUT  # the mask is somewhere else
        if not apart:
            hole = torch.maximum(hole, _around(most))
        if share > CUT if named is None else not apart or work.repairs:
            _tell(studio, seen if apart else shown)
            return Going(replace(going, poses=poses), "told", _clearing(hole, work.flow.handed_start))
    _tell(studio, seen)
    if named is None:
        poses.write(0, Pose.nowhere(poses.frames).numbers())
        start_at = work.flow.cleared_start
    else:
        put_inside(scenery, level, kept, poses, seed)
        start_at = work.flow.handed_start
    return Going(replace(scenery, poses=poses), "told", _clearing(hole, start_at))


def _held_around(studio: Studio, sampler: Sampler, board: int) -> Going:
    """What is around a mask goes on smoothly inside it, where nothing is known of what the clip shows and words name
    nothing that is.
    """
    canvas = studio.work.canvases[board]
    hole = mask_at(studio, canvas, stages_of(studio, board)[-1].level)
    studio.note(UNKNOWN.format(studio.work.model.name, "lets what is around the mask go on"))
    return Going(sampler, "held", Clearing(hole, studio.work.flow.given_start))


def _clearing(hole: Tensor, start: float) -> Clearing | None:
    """What drawing begins with; nothing but noise where nothing is around the hole."""
    return None if hole.min() > 0 else Clearing(hole, start)


def _saying(studio: Studio, sampler: Sampler, figure: int | None, scene: str | None) -> tuple[Sampler, tuple[str, ...]]:
    """The sampler with words that also say which `figure` given frames show, unless the user's name one, and in which
    `scene`; and what these add.
    """
    assert isinstance(sampler.backbone, DioramaBackbone)
    model, request = studio.work.model, studio.work.request
    unnamed = figure is not None and sampler.backbone.named(sampler.said) is None
    name = (_one(model.figures[figure]),) if figure is not None and unnamed else ()
    added = (*name, *(() if scene is None else (scene,)))
    if not added:
        return sampler, ()
    prompt = " ".join(filter(None, [*name, request.prompt, scene]))
    return replace(sampler, words=encoder_of(studio)(prompt, request.negative)), added


def _scene_in(studio: Studio, backbone: Backbone, sights: Sequence[Sight]) -> str | None:
    """The scene that all of some sights with a figure have, where the user's words say none."""
    scenes = studio.work.model.scenes
    if not scenes or says_one_of(studio.work.request.prompt, chain.from_iterable(scenes)):
        return None
    assert isinstance(backbone, DioramaBackbone)
    seen = {_scene_of(studio, backbone, sight) for sight in sights}
    return seen.pop() if len(seen) == 1 else None


def _tell(studio: Studio, shown: Sequence[str]) -> None:
    if shown:
        name = studio.work.model.name
        studio.note(f"{name} sees this in the given frames, and goes on with it: {' '.join(shown)}")


def _one(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _sights(
    studio: Studio, backbone: DioramaBackbone, board: int, frames: Sequence[Given], told: int | None
) -> Iterator[Sight]:
    """What each of some given frames shows; which figure it is words may have `told`."""
    level, fps = studio.work.canvases[board].levels[0], float(studio.work.request.fps)
    with studio.clock.stage("look"):
        texts = texts_of(studio, list(map(_one, studio.work.model.figures)))
        for frame in _latents_of(studio, board, frames):
            yield Sight(level, frame, recognised(backbone, frame, level, fps, texts, told))


def _latents_of(studio: Studio, board: int, frames: Sequence[Given]) -> Iterator[Tensor]:
    """Each of some given frames as it is at the first level, (1, c, 1, h, w)."""
    canvas = studio.work.canvases[board]
    assert isinstance(studio.vae, PatchVAE)
    for given in frames:
        (pixels,) = given_frames(studio.sources[given.source], given)
        (latent,) = encoded(studio.vae, iter([fitted(pixels, canvas, canvas.levels[0])]), 1, opening=True)
        yield latent[:, :, None]


def _scene_of(studio: Studio, backbone: DioramaBackbone, sight: Sight) -> str:
    """The phrase for the scene of a sight with a figure."""
    model = studio.work.model
    assert sight.figure is not None
    with studio.clock.stage("look"):
        phrases = [scene[0] for scene in model.scenes]
        texts = texts_of(studio, [f"{_one(model.figures[sight.figure])} {phrase}" for phrase in phrases])
        return phrases[scene_of(backbone, sight.latents, sight.level, float(studio.work.request.fps), texts)]
