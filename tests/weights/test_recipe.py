"""diorama's recipe: a batch is what its examples are alone, masks and known frames are what training says they are."""

import importlib
import random
import shutil
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import IterableDataset

from diorama import evaluate  # noqa: F401 - puts the recipe's own folder on the path
from sora_cli.model.dit import DiT
from sora_cli.model.recall import Asking
from sora_cli.model.retouch import Retouch
from sora_cli.model.tracing import Actor, moments, traced
from sora_cli.model.vae.patch import PatchVAE
from sora_weights.registry import find_model
from sora_weights.spec import DiTSpec, PatchVAESpec, RetouchSpec

world, scenes, vocabulary, examples, feed, training, courses, memory, package, vae_training, retouching = (
    importlib.import_module(name)
    for name in (
        "world",
        "scenes",
        "vocabulary",
        "examples",
        "feed",
        "dit_training",
        "course_training",
        "memory",
        "package",
        "vae_training",
        "retouch_training",
    )
)


@pytest.fixture(scope="module")
def sprites():
    """Every subject a disc of random grain that changes from frame to frame."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    disc = ((x**2 + y**2) < 0.9).astype(np.uint8)
    dice = np.random.default_rng(0)
    colours = dice.integers(0, 256, (len(vocabulary.SUBJECTS), 3, 4, 1, 1), dtype=np.uint8)
    colours[:, :, 3] = 255
    return world.sprites_of([each * disc for each in colours])


@pytest.fixture(scope="module")
def studio(sprites):
    torch.manual_seed(0)
    vae = PatchVAE(PatchVAESpec(channels=8, width=8, depth=1, tail_width=8))
    vae.basis.normal_()
    return examples.Studio(sprites, vae)


def shots(count: int, seed: int = 0):
    """Scenarios in drawing order, each with its own view of one size and its own times."""
    rng = random.Random(seed)
    drawn = [world.draw_scenario(rng) for _ in range(count)]
    drawn = [drawn[i] for i in world.in_order(drawn)]
    views = [world.View(160, 96, 8 * rng.randrange(5), 0, 96, 64) for _ in drawn]
    times = torch.stack([torch.arange(3) / rng.choice((8, 24)) + rng.random() for _ in drawn])
    return drawn, views, times


def test_a_batch_is_drawn_as_each_of_its_scenarios_alone(sprites):
    drawn, views, times = shots(24)
    picture, share, _ = world.draw(world.shots_of(drawn, views, times), sprites)
    assert picture.shape == (24, 3, 3, 64, 96)
    assert 0 <= picture.min() <= picture.max() <= 1
    assert share.amax() > 0.9
    for i in (0, 7, 23):
        assert torch.allclose(picture[i], world.render(drawn[i], sprites, views[i], times[i]), atol=1e-5)


def test_a_crop_is_a_part_of_the_whole_picture(sprites):
    drawn, views, times = shots(1, seed=3)
    whole = world.render(drawn[0], sprites, world.View(160, 96), times[0])
    part = world.render(drawn[0], sprites, views[0], times[0])
    left = views[0].left
    assert torch.allclose(part, whole[:, :, :64, left : left + 96], atol=1e-4)


@pytest.mark.parametrize("scene", vocabulary.SCENES)
def test_every_scene_has_a_painter_that_keeps_its_colours_finite(sprites, scene):
    scenario = world.Scenario("cat", scene, "still", "static", (0.3,) * 16)
    drawn = world.render(scenario, sprites, world.View(64, 48), torch.tensor([0.0, 0.5]))
    assert scene in scenes.PAINTERS
    assert torch.isfinite(drawn).all()


@pytest.mark.parametrize("camera", vocabulary.CAMERAS)
def test_the_camera_that_training_tells_of_says_where_the_moon_is(sprites, camera: str):
    """The network's own coordinates (`DiT._where`) at the moon's pixel are where the moon always is."""
    scenario = world.Scenario("cat", "night", "still", camera, (0.9,) * 16)
    view, times = world.View(320, 180), torch.tensor([0.0, 1.0, 1.7])
    moon = world.SHINING["night"]
    across, down, seen = world.seen_by(world.cast_of([scenario], [view]), times[None])[0]
    x = (moon[0] - across) / seen.exp() * 180 + 160
    y = (moon[1] - down) / seen.exp() * 180 + 90
    frames = world.render(scenario, sprites, view, times)
    for frame, column, row in zip(frames, x.tolist(), y.tolist(), strict=True):
        assert frame[:, round(row), round(column)].min() > 0.8
        assert frame[:, round(row) - 24, round(column)].min() < 0.6


def test_training_never_draws_what_is_held_out():
    rng = random.Random(1)
    drawn = [world.draw_scenario(rng) for _ in range(300)]
    assert not any(vocabulary.held_out(s.subject, s.scene, s.motion) for s in drawn)


def test_plans_become_batches_of_every_kind(studio):
    mixture = examples.Mixture(0.3, 0.2, 0.3, mixed=0.5)
    stream = examples.Examples(lambda _: mixture, seed=5, tokens=80)
    kinds = set()
    for plans in islice(stream, 24):
        batch = studio(plans)
        b, _, t, h, w = batch.latents.shape
        kinds.add(batch.kind)
        assert batch.figure.shape == (b, t, h, w)
        assert batch.artwork.shape == (b, 2, t, h, w)
        assert batch.place.seconds.shape == (b, t)
        assert batch.place.rows.shape == (b, h)
        assert (batch.enlarged is not None) == (plans[0].factor is not None)
        if batch.mask is not None:
            assert (batch.latents * ~batch.mask[:, None]).abs().max() == 0
    assert kinds == {"image", "clip", "part"}


@pytest.mark.parametrize(("kind", "mixed"), [("_whole", 0), ("_whole", 1), ("_crops", 0)])
def test_a_figure_traced_in_its_true_pose_is_where_the_world_draws_it(studio, sprites, kind: str, mixed: float):
    net = DiT(DiTSpec(channels=8, width=32, depth=2, heads=2, conv_width=8, artwork=64))
    memory.draw_pictures(net, sprites, studio.vae)
    made = examples.Examples(lambda _: examples.Mixture(1, 0, 0, mixed), 0)
    for seed in range(4):
        rng = random.Random(seed)
        plans = made._whole(rng, 4) if kind == "_whole" else made._crops(rng)
        batch = studio(plans)
        figures = torch.cat([plan.shots.cast.figures for plan in plans])
        pictures = partial(net.memory.picture, figures)
        poses = moments(training.true_pose(batch), batch.place.seconds, batch.place.rate, 4)
        drawn = traced([Actor(poses, pictures, 64)], net.memory.patches, net.memory.plain, batch.place.area)
        off = (drawn.cover[:, 0] - batch.figure).abs()
        assert (off if batch.mask is None else off[batch.mask]).mean() < 0.02


def test_courses_lead_where_the_world_draws_its_figures(studio, sprites):
    made = examples.Examples(lambda _: examples.Mixture(1, 0, 0, 0), 0)
    for seed in range(4):
        (plan,) = made._whole(random.Random(seed), 1)[:1]
        drawn = training.true_pose(studio([plan]))
        said = world.poses(plan.shots.cast, plan.shots.times, sprites.feet)
        for name in ("x", "y", "size", "mirrored"):
            assert torch.allclose(getattr(said, name), getattr(drawn, name), atol=1e-3)


def test_lessons_of_courses_keep_what_is_known_and_lead_there_steadily(sprites):
    lessons = courses.Lessons(sprites.feet, seed=2, tokens=512)
    beside = []
    for lesson in islice(lessons, 40):
        b, _, n = lesson.clean.shape[:3]
        assert lesson.known.shape == lesson.seconds.shape == (b, n)
        assert not lesson.known.all(1).any()
        assert torch.isfinite(lesson.clean).all()
        joins = lesson.known[:, 1:] ^ lesson.known[:, :-1]
        beside.append(lesson.clean[:, :2, :, 0, 0].diff(dim=2).abs().amax(1)[joins])
    assert torch.cat(beside).quantile(0.99) < 1.5  # standard deviations of places, in one latent frame


def test_a_course_that_is_all_but_drawn_costs_little(sprites):
    lesson = next(courses.Lessons(sprites.feet, seed=0))
    features, seen = torch.randn(len(lesson.words), 3, 6), torch.ones(len(lesson.words), 3, dtype=torch.bool)

    def cost(net) -> float:
        return float(courses.course_loss(net, lesson, features, seen, torch.Generator().manual_seed(0)))

    assert cost(lambda *_: lesson.clean) == 0
    assert cost(lambda x, *_: torch.zeros_like(x)) > 0.5


def test_the_memory_encodes_as_the_autoencoder_does(studio, sprites):
    net = DiT(DiTSpec(channels=8, width=32, depth=2, heads=2, conv_width=8, artwork=64))
    memory.draw_pictures(net, sprites, studio.vae)
    picture = torch.rand(1, 3, 16, 24)
    latents = studio.vae.encode_group((2 * picture - 1)[:, :, None].expand(-1, -1, 4, -1, -1))[:, :, 0]
    scaled = torch.nn.functional.conv2d(picture, net.memory.patches.sum(2), net.memory.plain, stride=8)
    assert torch.allclose(scaled * net.spread.view(-1, 1, 1), latents, atol=1e-4)


def test_an_exported_model_begins_a_run_as_it_was(tmp_path):
    shipped = find_model("diorama").folder
    for name in ("text.safetensors", "tokenizer.json"):
        shutil.copy(shipped / name, tmp_path)
    package.write_model(tmp_path, package.read_model(shipped), shipped / "figures.zip")
    again, before = (package.read_model(folder) for folder in (tmp_path, shipped))
    assert max(file.stat().st_size for file in tmp_path.iterdir()) < 16 * 2**20
    assert again.keys() == before.keys() == {"dit", "vae", "retouch"}
    for name, tensors in before.items():
        assert again[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert again[name][key].dtype == tensor.dtype
            assert torch.allclose(again[name][key].float(), tensor.float(), atol=2e-3), key


def _any_words(count: int, width: int) -> training.Captions:
    return training.Captions(
        torch.randn(count, 3, width), torch.ones(count, 3, dtype=torch.bool), torch.zeros(count, 3)
    )


def test_every_kind_of_batch_teaches_all_lessons(studio, sprites):
    spec = DiTSpec(channels=8, width=64, depth=2, heads=4, conv_width=8, artwork=64, figures=len(vocabulary.SUBJECTS))
    net = DiT(spec)
    memory.draw_pictures(net, sprites, studio.vae)
    pointing, covering = memory.Pointing(net), memory.Covering(net)
    stream, dice = examples.Examples(lambda _: examples.Mixture(0.2, 0.1, 0.3), seed=2, tokens=80), torch.Generator()
    captions = _any_words(len(examples.combinations()) * examples.WORDINGS, spec.text_width)
    scenery = _any_words(len(vocabulary.SCENES) * training.SCENE_WORDINGS, spec.text_width)
    taught = set()
    for plans in islice(stream, 16):
        batch = studio(plans)
        loss = training.denoising_loss(net, batch, captions, scenery, dice)
        loss = loss + pointing.loss(batch) + covering.loss(batch)
        assert torch.isfinite(loss)
        taught.add(batch.kind)
    assert taught == {"image", "clip", "part"}


def test_what_drafts_show_is_bent_a_little_and_the_same_in_all_frames():
    y, x = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    disc = (((x - 48) ** 2 + (y - 32) ** 2) < 400).float().expand(1, 3, 5, 64, 96)
    bent, again, other = (examples._enlarged(disc, 2.0, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(bent, again)
    assert not torch.equal(bent, other)
    assert (bent - bent[:, :, :1]).abs().max() < 1e-5
    off = (bent - disc).abs()[0, 0, 0]
    radius = ((x - 48) ** 2 + (y - 32) ** 2).sqrt()
    assert off[(radius - 20).abs() > 12].max() < 0.1  # shapes end elsewhere, but not far from where they do
    grid = examples._bent(40, 32, 48, torch.Generator().manual_seed(0))
    straight = examples._bent(1, 32, 48, torch.Generator().manual_seed(0)) * 0 + grid.mean(0)
    pixels = (grid - straight)[..., 0] * 48 / 2
    assert 0.3 < pixels.std() < examples.BENT


def test_the_camera_is_unknown_more_often_beside_what_is_known():
    whole = torch.arange(4000) % 2 == 0
    known = training._filmed(whole, torch.Generator().manual_seed(0)).float()
    assert 1 - known[whole].mean() == pytest.approx(training.UNFILMED, abs=0.03)
    assert 1 - known[~whole].mean() == pytest.approx(training.UNFILMED_BESIDE, abs=0.03)


def test_captions_are_silent_of_a_camera_that_may_be_any(studio):
    stream = examples.Examples(lambda _: examples.Mixture(0.5, 0.1, 0.4), seed=5, tokens=400)
    rows, moves = examples.combinations(), 0
    for plans in islice(stream, 8):
        for plan in plans:
            moving = plan.shots.cast.numbers[:, 16 + world.TRAITS.index("static")] == 0
            for said, silent, moves_here in zip(plan.words, plan.silent, moving, strict=True):
                said, silent = rows[said // examples.WORDINGS], rows[silent // examples.WORDINGS]
                assert silent == (*said[:3], "static")
                assert moves_here or said == silent
                moves += int(moves_here)
    assert moves > 0


def test_captions_of_another_world_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "captions", lambda: ["a cat", "a dog"])
    table = {"features": torch.zeros(3, 2, 4), "seen": torch.ones(3, 2, dtype=torch.bool), "tokens": torch.zeros(3, 2)}
    save_file(table, tmp_path / "captions.safetensors")
    with pytest.raises(ValueError, match="3 captions, and the world has 2"):
        training.caption_table(tmp_path / "captions.safetensors", find_model("diorama").folder, "cpu")


def test_captions_are_kept_and_made_again_where_words_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept, builtin, tables = tmp_path / "captions.safetensors", find_model("diorama").folder, []
    for said in (["a cat", "a dog at night"], ["a cat", "a puppy at night"], ["a cat", "a puppy at night"]):
        monkeypatch.setattr(training, "captions", lambda said=said: said)
        before = kept.stat().st_mtime_ns if kept.exists() else None
        tables.append(training.caption_table(kept, builtin, "cpu"))
    assert kept.stat().st_mtime_ns == before
    first, second, third = tables
    assert torch.equal(first.features[0], second.features[0])
    assert not torch.equal(first.features[1], second.features[1])
    assert all(torch.equal(one, other) for one, other in zip(second, third, strict=True))


def test_known_frames_are_never_all_of_a_clip(studio):
    rng = random.Random(2)
    batch = studio([examples.Examples(lambda _: None, 1, 200)._plan(rng, [world.View(64, 48)] * 40, 4)])
    dice = torch.Generator().manual_seed(0)
    seen_known = False
    for _ in range(20):
        level, learned = training.draw_timesteps(batch, dice)
        assert learned.any(1).all()
        assert level[~learned].numel() == 0 or level[~learned].max() <= 0.25
        assert 0 <= level.min() <= level.max() <= 1
        seen_known |= bool((~learned).any())
    assert seen_known


class Counting(IterableDataset):
    def __iter__(self):
        yield from range(10_000)


def test_a_shelf_shows_each_batch_as_often_as_it_is_told_to():
    shown = list(islice(feed.Feed(Counting(), lambda plan: plan, "cpu", times=3, shelf=8), 600))
    assert 170 < len(set(shown)) < 240
    assert list(islice(feed.Feed(Counting(), lambda plan: plan, "cpu"), 3)) == [0, 1, 2]


def test_a_mixture_goes_over_into_another():
    early, late = examples.Mixture(0.6, 0.2, 0.1, 0.0), examples.Mixture(0.2, 0.1, 0.5, 0.4)
    assert early.towards(late, 0) == early
    assert early.towards(late, 1) == late
    assert early.towards(late, 0.5).clips == pytest.approx(0.3)


class Looks(torch.nn.Module):
    """A network that does nothing but look at a sheet of 4x4, with four heads of the six for the latents of a patch."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SimpleNamespace(sheet=4, patch=2)
        self.asking = Asking(24, 6)


def looked_at(sheet: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """A picture of the sheet's probabilities, read off between its pixels at (x, y) in -1 .. 1."""
    where = torch.tensor([[[[x, y]]]])
    return torch.nn.functional.grid_sample(sheet[None, None], where, align_corners=False)[0, 0, 0, 0]


def test_the_lesson_of_where_to_look_is_the_cross_entropy_at_the_true_points():
    torch.manual_seed(0)
    net = Looks()
    lesson = memory.Pointing(net)
    asked, keys = net.asking(torch.randn(2, 1, 24), torch.randn(2, 32, 24))  # one patch of each picture, two sheets
    points = torch.rand(2, 2, 1, 2, 2) * 1.4 - 0.7
    figure = torch.tensor([[[[1.0, 0.5], [0.1, 1.0]]], [[[0.0, 1.0], [1.0, 0.3]]]])
    mirrored = torch.tensor([False, True])
    loss = lesson.loss(SimpleNamespace(figure=figure, artwork=points, mirrored=mirrored))

    logs = (asked.detach() @ keys.detach().transpose(-1, -2) * 4**-0.5).log_softmax(-1)
    total = weight = 0.0
    for picture in range(2):
        for latent in range(4):
            share = figure[picture].flatten()[latent]
            sheet = logs[picture, latent, 0, 16 * picture : 16 * picture + 16].unflatten(0, (4, 4))
            found = looked_at(sheet, *points[picture].flatten(1)[:, latent].tolist())
            total -= float(found * share) * (share > memory.PLAIN)
            weight += float(share) * (share > memory.PLAIN)
    assert torch.isclose(loss, torch.as_tensor(total / weight), rtol=1e-5)


def test_the_lesson_of_what_is_figure_is_the_cross_entropy_of_coverage():
    net = torch.nn.Module()
    net.spec, net.pointer = SimpleNamespace(patch=2), torch.nn.Module()
    net.pointer.cover = torch.nn.Linear(3, 4)
    lesson = memory.Covering(net)
    said = net.pointer.cover(torch.randn(1, 2, 3)).sigmoid().detach()  # two patches side by side, 4 latents each
    figure = torch.rand(1, 1, 2, 4)
    total = 0.0
    for patch in range(2):
        for latent in range(4):
            true, share = figure[0, 0, latent // 2, 2 * patch + latent % 2], said[0, patch, latent]
            total -= float(true * share.log() + (1 - true) * (1 - share).log())
    assert torch.isclose(lesson.loss(SimpleNamespace(figure=figure)), torch.as_tensor(total / 8), rtol=1e-5)


def test_words_tell_the_scene_of_each_sample(studio):
    plans = next(iter(examples.Examples(lambda _: examples.Mixture(1.0, 0.0, 0.0, 0.0), seed=3, tokens=2000)))
    captions, scenes = examples.captions(), list(vocabulary.SCENES)
    batch = studio(plans)
    for row, scene in zip(batch.words, batch.scene, strict=True):
        assert any(phrase in captions[row] for phrase in vocabulary.SCENES[scenes[scene]].phrases)


def test_a_part_to_be_drawn_is_inside_the_picture_and_holds_no_figure_where_none_shall_be_seen(studio):
    stream, dice = examples.Examples(lambda _: examples.Mixture(0.5, 0.1, 0.4), seed=4, tokens=200), torch.Generator()
    seen_bare = 0
    for plans in islice(stream, 12):
        batch = studio(plans)
        drawn = training._left_out(batch, dice)
        assert drawn.shape == (len(batch.words), 1, 1, *batch.latents.shape[3:])
        assert set(drawn.unique().tolist()) <= {0.0, 1.0}
        bare = training._bare(batch, drawn, dice)
        seen_bare += int(bare.sum())
        assert (batch.figure[:, None] * drawn)[bare].sum() == 0
    assert seen_bare > 0


def test_the_decoder_learns_from_what_the_denoiser_makes(studio, sprites):
    spec = DiTSpec(channels=8, width=64, depth=2, heads=4, conv_width=8, artwork=64, figures=len(vocabulary.SUBJECTS))
    net = DiT(spec).eval().requires_grad_(False)
    memory.draw_pictures(net, sprites, studio.vae)
    vae = PatchVAE(studio.vae.spec)
    vae.load_state_dict(studio.vae.state_dict())
    for plans in islice(examples.Examples(lambda _: examples.Mixture(0.3, 0.0, 0.4, 0.0), seed=5, tokens=60), 4):
        video, batch = studio.filmed(plans)
        text = torch.randn(len(video), 3, spec.text_width)
        seen = torch.ones(text.shape[:2], dtype=torch.bool)
        for beside in (None, 2):
            latents = vae_training.drawn_latents(vae, net, video, batch, text, seen, torch.Generator(), 1.0, beside)
            drawn = vae.decode(latents)
            assert drawn.shape == video.shape
            assert not latents.requires_grad
            drawn.abs().mean().backward()
    assert vae.outward.weight.grad.abs().sum() > 0


def test_figures_are_drawn_sharp_from_what_is_told_of_them(studio, sprites):
    spec = DiTSpec(channels=8, width=32, depth=2, heads=2, conv_width=8, artwork=64, figures=len(vocabulary.SUBJECTS))
    net, sharp = DiT(spec), Retouch(RetouchSpec(width=8, depth=1))
    memory.draw_pictures(net, sprites, studio.vae)
    lesson = retouching.Retouching(net.memory, spec.artwork, torch.Generator().manual_seed(0))
    for plans in islice(examples.Examples(lambda _: examples.Mixture(0.3, 0.0, 0.4, 0.0), seed=5, tokens=60), 16):
        video, batch = studio.filmed(plans)
        soft = torch.nn.functional.avg_pool3d(video, (1, 5, 5), 1, (0, 2, 2))
        lesson.loss(sharp, video, soft, batch).backward()
    assert sharp.outward.weight.grad.abs().sum() > 0
    assert lesson.gain() > 0.5  # as it begins, a figure that is nearly there is taken


def test_most_parts_to_be_drawn_are_where_the_figure_is():
    dice, figure = torch.Generator().manual_seed(0), torch.zeros(400, 4, 12, 20)
    figure[:, :, 7:10, 13:16] = 1
    batch = SimpleNamespace(figure=figure, latents=torch.zeros(400, 2, 4, 12, 20))
    drawn = training._left_out(batch, dice)
    assert ((drawn[:, 0] * figure).amax((1, 2, 3)) > 0).float().mean() > 0.6
