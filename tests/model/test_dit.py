"""diorama's denoiser: padding changes nothing, known frames are copied from, positions are global."""

from dataclasses import replace

import pytest
import torch

from sora_cli.model.artwork import Drawn, halved
from sora_cli.model.dit import Around, DiT, Place, Reliance, locate, nearest_known, seconds_of
from sora_cli.model.tracing import Pose
from sora_weights.spec import DiTSpec

SPEC = DiTSpec(channels=4, patch=2, width=32, depth=2, heads=2, conv_width=8, text_width=6, text_tokens=5, artwork=16)


@pytest.fixture(scope="module")
def network() -> DiT:
    """A small network with every weight awake, and figures in its memory that any words find."""
    torch.manual_seed(0)
    made = DiT(SPEC)
    for tensor in made.parameters():
        tensor.data.add_(torch.randn_like(tensor) * 0.05)
    made.memory.names.copy_(torch.nn.functional.normalize(torch.randn(SPEC.figures, SPEC.names, 6), dim=-1))
    for tensor in (made.memory.sheets, made.memory.patches, made.memory.plain):
        tensor.normal_()
    pictures = torch.randint(256, (SPEC.figures, 4, 16, 16), dtype=torch.uint8)
    made.memory.artwork = Drawn(halved(pictures), torch.arange(SPEC.figures))
    torch.nn.init.constant_(made.pointer.cover.bias, 1.0)
    return made.eval().requires_grad_(False)


def place(frames: int, rows: int, columns: int, height: int = 96, width: int = 160) -> Place:
    return locate(seconds_of(0, frames, 24.0, 4), 6.0, (height, width), (0, 0), (rows, columns), 8)


def text(batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 5, 6), torch.ones(batch, 5, dtype=torch.bool)


def test_padded_sample_gives_what_it_gives_alone(network):
    x, (words, seen) = torch.randn(1, 4, 3, 6, 8), text()
    times, where = torch.full((1, 3), 0.6), place(3, 6, 8)
    alone = network(x, times, words, seen, where)
    padded = torch.zeros(1, 4, 4, 10, 12)
    padded[:, :, :3, :6, :8] = x
    mask = torch.zeros(1, 4, 10, 12, dtype=torch.bool)
    mask[:, :3, :6, :8] = True
    wide = Place(
        seconds=torch.cat([where.seconds, where.seconds[:, -1:]], 1),
        rows=torch.cat([where.rows, where.rows[:, -1:].expand(1, 4)], 1),
        columns=torch.cat([where.columns, where.columns[:, -1:].expand(1, 4)], 1),
        height=where.height,
        width=where.width,
        rate=where.rate,
        camera=where.camera,
    )
    # The padding's timestep is pure noise, so that it is no known frame to copy from.
    both = network(padded, torch.tensor([[0.6, 0.6, 0.6, 1.0]]), words, seen, wide, mask)
    assert torch.allclose(both[:, :, :3, :6, :8], alone, atol=1e-4)
    assert both[:, :, 3:].abs().max() == 0
    assert both[:, :, :, 6:].abs().max() == 0


def test_a_figure_is_drawn_where_the_network_is_told_and_nowhere_else(network):
    x, (words, seen), where = torch.randn(1, 4, 2, 12, 20), text(), place(2, 12, 20)
    arguments = (x, torch.full((1, 2), 0.6), words, seen, where)
    seen_there = network.pose(*arguments)
    assert seen_there.there.min() > 0
    away = Pose(*(torch.full((1, 2), value) for value in (0.1, 0.1, 0.1, 0.0, 1.0, 0.0)))
    large, small = (network.trace(pose, words, seen, where) for pose in (away, replace(away, size=0.5 * away.size)))
    seen_by_head = (network(*arguments, told=large) - network(*arguments, told=small)).abs()
    assert seen_by_head[..., :5, :5].max() > 1e-3
    assert network(*arguments, told=large)[..., :5, :5].ne(network(*arguments)[..., :5, :5]).any()


def test_of_what_is_told_no_more_is_taken_than_is_trusted_however_noisy_it_is(network):
    """At pure noise a figure that the network sees by itself is not taken; one that it is told is."""
    x, (words, seen), where = torch.randn(1, 4, 2, 12, 20), text(), place(2, 12, 20)
    arguments = (x, torch.ones(1, 2), words, seen, where)
    own = (network(*arguments, reliance=Reliance(figures=logits)) for logits in (-99.0, 99.0))
    assert torch.equal(*own)
    middle = torch.tensor([0.5, 0.5, 0.4, 0.0, 1.0, 0.0]).view(6, 1, 1)
    told = network.trace(Pose(*middle.expand(6, 1, 2)), words, seen, where)
    never, wholly = (network(*arguments, told=told, reliance=Reliance(figures=logits)) for logits in (-99.0, 99.0))
    assert (wholly - never).abs()[told.cover.expand_as(x) > 0.5].mean() > 1e-2


def test_who_relies_on_the_memory_draws_what_it_holds(network):
    """With all trust the figure's latents are the traced ones; with none its pictures do not matter."""
    x, (words, seen), where = torch.randn(1, 4, 1, 12, 20), text(), place(1, 12, 20)
    arguments, pose = (
        (x, torch.full((1, 1), 0.6), words, seen, where),
        Pose(*torch.tensor([0.5, 0.5, 0.4, 0.0, 1.0, 0.0]).view(6, 1, 1)),
    )
    figure = network.trace(pose, words, seen, where)
    never, little, wholly = (
        network(*arguments, told=figure, reliance=Reliance(figures=logits)) for logits in (-99.0, 0.0, 99.0)
    )
    inside = (figure.cover > 0.25).expand_as(x)
    assert inside.any()
    composed = network._composed(figure, never)
    assert torch.allclose(wholly[inside], composed[inside], atol=1e-4)
    assert torch.equal(wholly[figure.cover.expand_as(x) == 0], never[figure.cover.expand_as(x) == 0])
    assert (little - never).abs().max() > 1e-3


def camera(across: float, down: float, seen: float, frames: int = 1) -> torch.Tensor:
    """A known camera that stands still, (1, 4, frames)."""
    return torch.tensor([across, down, seen, 1.0]).view(1, 4, 1).expand(1, 4, frames)


def test_a_camera_moves_where_latents_lie_in_the_scene(network):
    """As far as latents would lie in the scene if the picture itself were elsewhere, or another part of it."""
    still = replace(place(2, 12, 20), camera=camera(0, 0, 0))
    moved = replace(still, camera=camera(0.3, -0.1, 0))
    elsewhere = replace(still, columns=still.columns + 0.3 * 96 / 160, rows=still.rows - 0.1)
    assert torch.allclose(network._where(moved), network._where(elsewhere), atol=1e-5)
    closer = replace(still, camera=camera(0, 0, -0.5))
    by = torch.tensor(0.5).exp()
    middle = {name: (getattr(still, name) - 0.5) / by + 0.5 for name in ("rows", "columns")}
    inner = replace(still, height=by * still.height, width=by * still.width, **middle)  # the same of a larger picture
    assert torch.allclose(network._where(closer), network._where(inner), atol=1e-5)


def test_a_camera_that_stands_still_may_be_told_once_or_for_every_frame(network):
    x, (words, seen), times = torch.randn(1, 4, 3, 12, 20), text(), torch.full((1, 3), 0.6)
    once, each = (
        network(x, times, words, seen, replace(place(3, 12, 20), camera=camera(0.1, 0.0, 0.2, count)))
        for count in (1, 3)
    )
    assert torch.allclose(once, each, atol=1e-3)
    unknown = network(x, times, words, seen, place(3, 12, 20))
    resting = network(x, times, words, seen, replace(place(3, 12, 20), camera=camera(0, 0, 0)))
    assert (unknown - resting).abs().max() > 1e-3  # that it rests is more than that nothing is known of it


def test_at_timestep_zero_the_latents_come_back(network):
    x, (words, seen) = torch.randn(1, 4, 2, 4, 4), text()
    clean = network(x, torch.zeros(1, 2), words, seen, place(2, 4, 4))
    assert torch.allclose(clean, x, atol=1e-5)


def test_words_that_are_not_real_do_not_matter(network):
    x, (words, _) = torch.randn(1, 4, 1, 4, 4), text()
    seen = torch.tensor([[True, True, False, False, False]])
    other = words.clone()
    other[:, 2:] = 99.0
    arguments = (x, torch.full((1, 1), 0.5))
    assert torch.equal(
        network(*arguments, words, seen, place(1, 4, 4)), network(*arguments, other, seen, place(1, 4, 4))
    )


def test_no_words_at_all_is_the_same_for_any_features(network):
    x, none = torch.randn(1, 4, 1, 4, 4), torch.zeros(1, 5, dtype=torch.bool)
    arguments = (x, torch.full((1, 1), 0.5))
    first = network(*arguments, torch.zeros(1, 5, 6), none, place(1, 4, 4))
    assert torch.isfinite(first).all()
    assert torch.equal(first, network(*arguments, torch.randn(1, 5, 6), none, place(1, 4, 4)))


def test_nearest_known_frame_is_found_on_either_side():
    x = torch.arange(5.0).view(1, 1, 5, 1, 1)
    copies, nearness = nearest_known(x, torch.tensor([[True, False, False, False, True]]))
    assert copies.flatten().tolist()[:2] == [0, 0]
    assert copies.flatten().tolist()[3:] == [4, 4]
    assert nearness.flatten()[0] == nearness.flatten()[4] == 1
    assert nearness.flatten()[1] < 1


def test_what_is_not_bare_counts_as_unknown():
    x, bare = torch.ones(1, 2, 3, 1, 2), torch.tensor([[[[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]]]])
    copies, nearness = nearest_known(x, torch.tensor([[True, False, False]]), bare)
    assert copies[0, 0, :, 0].tolist() == [[1, 0]] * 3
    assert (nearness[0, 0, :, 0, 0] > 0).all()
    assert nearness[0, 0, :, 0, 1].abs().max() == 0


def test_without_a_known_frame_there_is_nothing_to_copy():
    copies, nearness = nearest_known(torch.ones(1, 1, 3, 1, 1), torch.zeros(1, 3, dtype=torch.bool))
    assert copies.abs().max() == 0
    assert nearness.abs().max() == 0


def test_seconds_are_the_middles_of_latent_frames():
    assert torch.allclose(seconds_of(0, 3, 24.0, 4) * 24, torch.tensor([0.0, 2.5, 6.5]))
    assert torch.equal(seconds_of(2, 1, 24.0, 4), seconds_of(0, 3, 24.0, 4)[2:])


def test_what_stands_still_in_known_frames_is_carried_on_where_that_is_relied_on():
    torch.manual_seed(3)
    network = DiT(SPEC).eval()
    x = torch.randn(1, 4, 4, 4, 4)
    x[:, :, 1] = x[:, :, 0]
    x[:, :, 1, :, 2:] += 2  # this half moves
    arguments = (x, torch.tensor([[0.0, 0.0, 0.9, 0.9]]), torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool))
    made = network(*arguments, place(4, 4, 4), reliance=Reliance(still=99.0))
    assert torch.allclose(made[:, :, 2:, :, :2], x[:, :, :1, :, :2].expand(-1, -1, 2, -1, -1), atol=1e-5)
    assert (made[:, :, 2:, :, 2:] - x[:, :, 1:2, :, 2:]).abs().mean() > 0.1


def test_what_is_known_around_a_part_is_seen_and_the_rest_is_not(network):
    torch.manual_seed(4)
    x, times, (words, seen), where = torch.randn(1, 4, 2, 6, 8), torch.full((1, 2), 0.8), text(), place(2, 6, 8)
    known = torch.ones(1, 1, 2, 6, 8)
    known[..., 2:4, 3:6] = 0

    def made(latents: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return network(x, times, words, seen, where, around=Around(latents, known))

    latents, other = torch.randn(2, *x.shape)
    assert torch.equal(made(latents, known), made(latents * known + other * (1 - known), known))
    assert not torch.allclose(made(latents, known), made(other, known))
    assert torch.allclose(made(latents, torch.zeros_like(known)), network(x, times, words, seen, where), atol=1e-5)
