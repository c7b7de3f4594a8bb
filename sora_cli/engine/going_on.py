"""How the figure of a board goes on from what is given: who it is, where it stands, and which words say so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from torch import Tensor

from sora_cli.engine.backbones import DioramaBackbone
from sora_cli.engine.boards import Given
from sora_cli.engine.canvas import Level
from sora_cli.engine.courses import plan_course
from sora_cli.engine.footage import encoded, fitted, given_frames
from sora_cli.engine.inside import outside, put_inside
from sora_cli.engine.pipeline import Sampler
from sora_cli.engine.recognition import recognised, scene_of
from sora_cli.engine.studio import Studio, encoder_of, kept_at, poses_file, stages_of, texts_of
from sora_cli.engine.vocabulary import says_one_of
from sora_cli.engine.work import LARGER_MODELS
from sora_cli.model.tracing import Pose
from sora_cli.model.vae.patch import PatchVAE

Going = Literal["planned", "found", "held", "inside"]
"""How the figure of a board goes on: as is planned, as the draft has it, not at all, or as a mask has it."""

CUT = 0.05  # share of a figure that is seen outside a mask, at least, where that is taken for one that cuts the figure


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What a given frame shows: its latents (1, c, 1, h, w) at a level, and the number of its figure, if known."""

    level: Level
    latents: Tensor
    figure: int | None


def going_on(studio: Studio, sampler: Sampler, board: int) -> tuple[Sampler, Going]:
    """The sampler for a board, and how its figure goes on. What the network doesn't know it can only hold.

    Beside given frames the memory of figures is relied on where it holds the one that they show, and where the words,
    if they name any, name that one; then the words need not name it.
    """
    model, drawn = studio.work.model, studio.work.film.boards[board]
    if not (model.figures and isinstance(sampler.backbone, DioramaBackbone)):
        return sampler, "found"
    named = sampler.backbone.named(sampler.words.prompt)
    sure = replace(sampler, reliance=studio.work.flow.reliance)
    if studio.work.request.mask is not None and studio.work.strength(board) == 1:
        return sure, "inside"
    course: Going = "found" if drawn.start else "planned"
    if not drawn.edges:
        return sure, "found" if named is None else course
    sights = list(_sights(studio, sampler.backbone, board, drawn.edges, named))
    figures = {sight.figure for sight in sights}
    figure = figures.pop() if len(figures) == 1 else None
    if figure is None:
        if drawn.start:
            return sampler, "found"
        studio.note(f"{model.name} doesn't know what the given frames show, and holds them; {LARGER_MODELS}")
        return sampler, "held"
    if named not in (None, figure):
        return sampler, "found"
    going, shown = _saying(studio, sure, sights)
    _tell(studio, shown)
    return going, course


def figure_inside(studio: Studio, sampler: Sampler, board: int) -> tuple[Sampler, bool]:
    """The sampler for what is inside a mask, with the poses of the figure there: the one that the clip shows, where the
    mask cuts it or the words name it; else one that the words put there. Or none, and only scenery: then True.
    """
    assert isinstance(sampler.backbone, DioramaBackbone)
    work, canvas, start = studio.work, studio.work.canvases[board], studio.work.film.boards[board].start
    level, seed, poses = stages_of(studio, board)[0].level, work.request.seed + board, poses_file(studio, board)
    kept, named = kept_at(studio, canvas, level, board), sampler.backbone.named(sampler.words.prompt)
    assert kept is not None
    looked = [replace(start[0], first=at, count=1) for at in (0, work.film.frames // 2, work.film.frames - 1)]
    tries = (_sights(studio, sampler.backbone, board, looked, told) for told in dict.fromkeys((None, named)))
    sight = next((each for each in chain.from_iterable(tries) if each.figure is not None), None)
    scenery, seen = (sampler, ()) if sight is None else _saying(studio, sampler, [sight], who=False)
    if sight is not None and named in (None, sight.figure):
        going, shown = _saying(studio, sampler, [sight])
        plan_course(going, level, kept.latents, poses, [True] * poses.frames, seed)
        share = outside(going, level, poses, kept.inside)
        if share > CUT if named is None else share < 1 - CUT or work.repairs:
            _tell(studio, shown)
            return replace(going, poses=poses), False
    _tell(studio, seen)
    if named is None:
        poses.write(0, Pose.nowhere(poses.frames).numbers())
    else:
        put_inside(scenery, level, kept, poses, seed)
    return replace(scenery, poses=poses), named is None


def _saying(
    studio: Studio, sampler: Sampler, sights: Sequence[Sight], *, who: bool = True
) -> tuple[Sampler, tuple[str, ...]]:
    """The sampler with words that also say what given frames show, as far as the user's don't, and what these add: the
    figure, unless `who` it is doesn't matter, and the scene, where all frames have one.
    """
    assert isinstance(sampler.backbone, DioramaBackbone)
    model, request, figure = studio.work.model, studio.work.request, sights[0].figure
    assert figure is not None
    name, scene = list[str](), list[str]()
    if who and sampler.backbone.named(sampler.words.prompt) is None:
        name.append(_one(model.figures[figure]))
    if model.scenes and not says_one_of(request.prompt, chain.from_iterable(model.scenes)):
        scenes = {_scene_of(studio, sampler.backbone, sight) for sight in sights}
        scene += scenes if len(scenes) == 1 else ()
    if not name and not scene:
        return sampler, ()
    prompt = " ".join(filter(None, [*name, request.prompt, *scene]))
    return replace(sampler, words=encoder_of(studio)(prompt, request.negative)), (*name, *scene)


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
    work, canvas = studio.work, studio.work.canvases[board]
    level, fps = canvas.levels[0], float(work.request.fps)
    assert isinstance(studio.vae, PatchVAE)
    with studio.clock.stage("look"):
        texts = texts_of(studio, list(map(_one, work.model.figures)))
        for given in frames:
            (pixels,) = given_frames(studio.sources[given.source], given)
            (latent,) = encoded(studio.vae, iter([fitted(pixels, canvas, level)]), 1, opening=True)
            frame = latent[:, :, None]
            yield Sight(level, frame, recognised(backbone, frame, level, fps, texts, told))


def _scene_of(studio: Studio, backbone: DioramaBackbone, sight: Sight) -> str:
    """The phrase for the scene of a sight with a figure."""
    model = studio.work.model
    assert sight.figure is not None
    with studio.clock.stage("look"):
        phrases = [scene[0] for scene in model.scenes]
        texts = texts_of(studio, [f"{_one(model.figures[sight.figure])} {phrase}" for phrase in phrases])
        return phrases[scene_of(backbone, sight.latents, sight.level, float(studio.work.request.fps), texts)]
