"""Figures in place: a pose is found from what latents look at, and drawn the same in every window."""

from dataclasses import replace

import pytest
import torch

from sora_cli.model import tracing
from sora_cli.model.artwork import halved
from sora_cli.model.tracing import (
    GREY,
    Actor,
    Area,
    Backdrop,
    Pictures,
    Pose,
    Traced,
    behind_figures,
    figure_pixels,
    fit_pose,
    moments,
    steadied,
    traced,
)

SIDE = 8


def area(columns: int = 20, rows: int = 12, left: int = 0, top: int = 0, width: int = 160, height: int = 96) -> Area:
    """Latents of 8 pixels in a picture, those of one window."""
    across, down = torch.arange(columns) + left + 0.5, torch.arange(rows) + top + 0.5
    return Area(8 * across[None], 8 * down[None], torch.tensor([float(width)]), torch.tensor([float(height)]))


def pose(x: float = 0.5, y: float = 0.5, size: float = 0.5, mirrored: float = 0.0, frames: int = 2) -> Pose:
    return Pose(*(torch.full((1, frames), value) for value in (x, y, size, mirrored, 1.0, 0.0)))


def points(there: Pose, where: Area) -> tuple[torch.Tensor, torch.Tensor]:
    """The point of the figure that each latent shows, (1, t, h, w) each, from -1 to 1 inside it."""
    half = there.size * where.side / 2
    u = (where.columns[:, None] - (there.x * where.width)[..., None]) / half[..., None]
    v = (where.rows[:, None] - (there.y * where.height)[..., None]) / half[..., None]
    return tuple(torch.broadcast_tensors(u[:, :, None], v[..., None]))  # type: ignore[return-value]


def attention(there: Pose, where: Area) -> tuple[torch.Tensor, torch.Tensor]:
    """What a network that is sure would look at, between the sheet's four nearest points; and what is figure."""
    u, v = points(there, where)
    centres = 2 * (torch.arange(SIDE) + 0.5) / SIDE - 1
    across, down = ((1 - (each[..., None] - centres).abs() * SIDE / 2).clamp(min=0) for each in (u, v))
    sheet = down[..., :, None] * across[..., None, :]
    sides = (1 - there.mirrored, there.mirrored)
    looked = torch.stack([sheet * side[..., None, None, None, None] for side in sides], 4)
    return looked, ((u.abs() < 0.8) & (v.abs() < 0.8)).float()


@pytest.mark.parametrize("mirrored", [0.0, 1.0])
@pytest.mark.parametrize(("x", "y", "size"), [(0.5, 0.5, 0.5), (0.3, 0.62, 0.4), (0.72, 0.4, 0.3), (0.05, 0.5, 0.5)])
def test_the_pose_is_found_from_what_latents_look_at(x: float, y: float, size: float, mirrored: float):
    true = pose(x, y, size, mirrored)
    found = fit_pose(*attention(true, area()), area())
    for name in ("x", "y", "mirrored", "there"):
        assert torch.allclose(getattr(found, name), getattr(true, name), atol=0.01), name
    assert torch.allclose(found.size, true.size, rtol=0.05)


def test_what_next_to_nothing_shows_is_not_believed():
    looked, cover = attention(pose(), area())
    none = fit_pose(looked, 0.2 * cover, area())
    assert none.there.max() == 0
    assert all(torch.isfinite(each).all() for each in (none.x, none.y, none.size))


LATENTS = torch.eye(3)[:, :, None, None, None].expand(3, 3, 1, 8, 8) / 64, torch.zeros(3)  # the mean of each colour


def drawn_as(picture: torch.Tensor) -> tuple[Pictures, int]:
    """A picture (4, P, P) in [0, 1] that never changes."""
    levels = halved((picture * 255).byte()[None])
    return lambda _moment, level: levels[level] / 255, picture.shape[-1]


def on_grey(drawn: Traced) -> torch.Tensor:
    """Latents on grey and coverage, (b, 4, t, h, w)."""
    return torch.cat([drawn.on(GREY), drawn.cover], 1)


def half_red() -> torch.Tensor:
    """Its left half is red, its right half blue; all of it is opaque."""
    made = torch.zeros(4, 32, 32)
    made[0, :, :16] = made[2, :, 16:] = made[3] = 1
    return made


@pytest.mark.parametrize("mirrored", [0.0, 1.0])
def test_a_figure_is_drawn_where_it_stands_and_faces_as_it_does(mirrored: float):
    there = pose(0.5, 0.5, 64 / (160 * 96) ** 0.5, mirrored)  # pixels 48 to 112 across, 16 to 80 down
    drawn = on_grey(traced([Actor([there], *drawn_as(half_red()))], *LATENTS, area()))
    assert drawn.shape == (1, 4, 2, 12, 20)
    cover = torch.zeros(12, 20)
    cover[2:10, 6:14] = 1
    assert torch.allclose(drawn[0, 3, 0], cover, atol=0.07)
    left, right = drawn[0, :3, 0, 5, 7], drawn[0, :3, 0, 5, 12]
    red, blue = (right, left) if mirrored else (left, right)
    assert torch.allclose(red, torch.tensor([1.0, 0.0, 0.0]), atol=0.01)
    assert torch.allclose(blue, torch.tensor([0.0, 0.0, 1.0]), atol=0.01)
    assert torch.allclose(drawn[0, :3, 0, 0, 0], torch.full((3,), GREY))


def test_a_window_shows_its_part_of_the_whole():
    torch.manual_seed(0)
    picture, there = torch.rand(4, 32, 32), pose(0.45, 0.55, 0.6)
    whole = on_grey(traced([Actor([there], *drawn_as(picture))], *LATENTS, area()))
    part = on_grey(traced([Actor([there], *drawn_as(picture))], *LATENTS, area(8, 6, left=5, top=3)))
    assert torch.allclose(part, whole[..., 3:9, 5:13], atol=1e-5)


def test_a_large_picture_shows_the_figure_at_the_same_place():
    drawn = on_grey(traced([Actor([pose(0.3, 0.6, 0.4)], *drawn_as(half_red()))], *LATENTS, area()))
    large = on_grey(
        traced([Actor([pose(0.3, 0.6, 0.4)], *drawn_as(half_red()))], *LATENTS, area(40, 24, width=320, height=192))
    )
    assert torch.allclose(torch.nn.functional.avg_pool3d(large, (1, 2, 2)), drawn, atol=0.05)


@pytest.mark.parametrize("left", range(0, 56, 4))
def test_windows_that_no_figure_reaches_are_as_if_it_had_been_drawn_there(left: int, monkeypatch):
    where = area(5, 7, left=left, top=9, width=480, height=192)
    walking = replace(pose(0.3, 0.5, 0.2, frames=3), x=torch.tensor([[0.28, 0.3, 0.32]]))
    poses = moments(walking, torch.arange(3)[None] / 6, torch.tensor([6.0]), 4)
    actors, patches = [Actor(poses, *drawn_as(half_red()))], torch.rand(3, 3, 4, 8, 8)
    found = traced(actors, patches, torch.zeros(3), where)
    monkeypatch.setattr(tracing, "_reaching", lambda *_: [True] * 3)
    drawn = traced(actors, patches, torch.zeros(3), where)
    for name in ("light", "behind", "colours", "cover"):
        assert torch.allclose(getattr(found, name), getattr(drawn, name), atol=1e-4), name


def test_where_there_is_none_nothing_is_drawn():
    absent = replace(pose(), there=torch.tensor([[1.0, 0.0]]))
    drawn = on_grey(traced([Actor([absent], *drawn_as(half_red()))], *LATENTS, area()))
    assert drawn[:, :, 0].abs().max() > 0
    assert drawn[:, :, 1].abs().max() == 0


def test_behind_a_figure_is_what_is_asked_for():
    there = pose(0.53, 0.5, 0.33)
    drawn, sky = traced([Actor([there], *drawn_as(half_red()))], *LATENTS, area()), torch.rand(1, 3, 2, 12, 20)
    shown = drawn.on(sky)
    bare = (drawn.cover == 0).expand_as(sky)
    assert torch.allclose(shown[bare], sky[bare], atol=1e-5)
    cover = drawn.cover[0, 0, 0]
    edge = shown[0, :, 0][:, (cover > 0.2) & (cover < 0.8)]
    beside = cover[(cover > 0.2) & (cover < 0.8)]
    assert len(beside) > 0
    assert torch.allclose(
        edge.sum(0), beside + (1 - beside) * sky[0, :, 0].sum(0)[(cover > 0.2) & (cover < 0.8)], atol=1e-4
    )


def test_figures_take_the_light_that_falls_on_them():
    there, light = pose(0.5, 0.5, 64 / (160 * 96) ** 0.5), torch.tensor([0.5, 1.0, 0.75]).view(1, 3, 1, 1, 1)
    drawn = traced([Actor([there], *drawn_as(half_red()))], *LATENTS, area())
    colours = drawn.colours * light
    found = drawn.tint(colours).flatten()
    assert torch.allclose(found, light.flatten(), atol=0.05)
    shown = drawn.on(0.0, drawn.tint(colours))
    assert torch.allclose(shown[0, 0, 0, 5, 7], torch.tensor(0.5), atol=0.05)
    assert torch.equal(drawn.tint(0 * colours + 9).flatten(), torch.full((3,), 1.5))


def test_colours_behind_a_figure_are_those_beside_it():
    colours, cover = torch.zeros(1, 3, 1, 7, 9), torch.zeros(1, 1, 1, 7, 9)
    colours[:, 0] = 0.25
    cover[..., 2:5, 3:6] = 1
    colours[:, :, :, 2:5, 3:6] = 0.9  # the figure's own
    behind = behind_figures(colours, cover).colour
    assert torch.allclose(behind[:, 0], torch.tensor(0.25))
    assert behind[:, 1:].abs().max() < 1e-6
    assert torch.equal(behind_figures(colours, torch.ones_like(cover)).colour, colours)  # nothing is beside it


def test_a_sky_goes_on_behind_a_figure():
    rows, columns = torch.arange(8.0)[:, None], torch.arange(10.0)[None]
    sky = 0.3 + 0.05 * rows + 0.02 * columns
    cover = torch.zeros(1, 1, 1, 8, 10)
    cover[..., 3:6, 4:6] = 1
    colours = torch.where(cover > 0, 0.9, sky).expand(1, 3, 1, 8, 10)
    behind = behind_figures(colours, cover)
    assert (behind.colour - sky)[..., 2:6, 3:7].abs().max() < 0.02
    assert (behind.down - 0.05)[..., 2:6, 3:7].abs().max() < 0.02
    assert (behind.across - 0.02)[..., 2:6, 3:7].abs().max() < 0.02


def test_what_slopes_is_encoded_as_it_is():
    torch.manual_seed(2)
    patches, apart = torch.randn(5, 3, 4, 8, 8), (torch.arange(8) + 0.5) / 8 - 0.5
    across, down = torch.randn(2, 1, 3, 1, 1, 1)
    picture = across[0, :, 0, 0, :, None] * apart[None, None] + down[0, :, 0, 0, :, None] * apart[None, :, None]
    made = Backdrop(across, across, down).sloping(patches)
    assert torch.allclose(made.flatten(), torch.einsum("c k T p q, k p q -> c", patches, picture), atol=1e-4)


def test_a_moving_figure_moves_within_a_latent_frame_too():
    seconds = torch.tensor([[0.0, 2.5, 6.5, 10.5]]) / 24
    steady = Pose(0.2 + 0.3 * seconds, 0.5 - 0.1 * seconds, 0.4 * 2**seconds, 0 * seconds, 1 + 0 * seconds, 2 * seconds)
    found = moments(steady, seconds, torch.tensor([6.0]), 4)
    for frame, there in enumerate(found):
        at = seconds + (frame - 1.5) / 24 * (seconds > 0)
        assert torch.allclose(there.x, 0.2 + 0.3 * at)
        assert torch.allclose(there.y, 0.5 - 0.1 * at)
        assert torch.allclose(there.size, 0.4 * 2**at)
        assert torch.allclose(there.moment, 2 * at)


def test_what_is_far_away_in_time_says_nothing_of_the_motion():
    seconds = torch.tensor([[0.0, 18.5, 22.5, 22.5]]) / 24  # an anchor before a window, padding behind it
    jumping = Pose(*(torch.tensor([[0.9, 0.2, 0.3, 0.3]]) for _ in range(3)), 0 * seconds, 1 + 0 * seconds, 2 * seconds)
    first, *_, last = moments(jumping, seconds, torch.tensor([6.0]), 4)
    assert torch.allclose((last.x - first.x)[0], torch.tensor([0.0, 0.075, 0.075, 0.0]))


def test_a_figure_never_shrinks_to_less_than_nothing():
    seconds = torch.tensor([[0.0, 2.5, 6.5]]) / 24
    jumping = replace(pose(frames=3), size=torch.tensor([[0.9, 0.1, 0.9]]))
    assert all(there.size.min() > 0 for there in moments(jumping, seconds, torch.tensor([6.0]), 4))


def _course(x: torch.Tensor, y: torch.Tensor) -> Pose:
    ones = torch.ones_like(x)
    return Pose(x, y, ones / 2, 0 * ones, ones, 0 * ones)


RATE = torch.tensor([6.0])


def test_a_steady_course_is_left_alone_and_a_trembling_one_is_steadied():
    seconds = torch.arange(1, 14)[None] / 6.0
    line = 0.1 + 0.2 * seconds
    trembling = line + 0.01 * torch.tensor([1.0, -1] * 6 + [1])
    ones = torch.ones_like(line)
    pose = steadied(_course(line, trembling), seconds, RATE, ones)
    assert torch.allclose(pose.x, line, atol=1e-4)
    assert torch.allclose(pose.size, ones / 2)
    swapped = steadied(_course(trembling, line), seconds, RATE, ones)
    assert (swapped.x - line).abs().max() < 0.004


def test_what_rushes_is_slowed_and_what_hops_still_hops():
    seconds = torch.arange(1, 14)[None] / 6.0
    rush = torch.sigmoid((seconds - seconds.mean()) * 6)
    hops = 0.2 * torch.sin(torch.pi * 0.9 * seconds).abs()
    pose = steadied(_course(rush, hops), seconds, RATE, torch.ones_like(seconds))
    assert pose.x.diff().max() < 0.75 * rush.diff().max()
    assert (pose.y.max() - pose.y.min()) > 0.8 * (hops.max() - hops.min())


def test_what_is_doubted_follows_what_is_known():
    seconds = torch.arange(1, 14)[None] / 6.0
    off = torch.where(seconds < 0.9, 0.4, 0.5)  # what is known ends at 0.4
    doubt = torch.where(seconds < 0.9, 0.1, 1.1)
    pose = steadied(_course(off, off), seconds, RATE, doubt)
    known = seconds < 0.9
    assert (pose.x - off)[known].abs().max() < 0.5 * (pose.x - off)[~known].abs().max()
    assert pose.x.diff().max() < 0.05


def test_the_course_is_the_same_at_every_rate():
    def through(rate: float) -> torch.Tensor:
        seconds = torch.arange(1, round(2 * rate) + 1)[None] / rate
        step = torch.sigmoid((seconds - 1) * 8)
        weight = torch.full_like(seconds, rate / 6)  # twice as many frames say half as much each
        return steadied(_course(step, step), seconds, torch.tensor([rate]), weight).x[0, round(rate / 2) - 1]

    assert torch.allclose(through(12.0), through(6.0), atol=0.05)


def test_nothing_leads_across_a_gap_or_the_padding():
    seconds = torch.tensor([[0.0, 1.0, 1.1667, 1.3333, 1.5, 1.5, 1.5]])
    x = torch.tensor([[0.9, 0.1, 0.1, 0.1, 0.1, 0.7, 0.7]])
    pose = steadied(_course(x, x), seconds, RATE, torch.ones_like(seconds))
    assert torch.allclose(pose.x, x, atol=1e-5)


def test_numbers_are_the_pose():
    there = pose(0.1, 0.2, 0.3, 1.0)
    back = Pose.of(there.numbers())
    assert all(torch.equal(getattr(back, name), getattr(there, name)) for name in Pose.__slots__)


def test_who_comes_later_stands_in_front():
    red, blue = torch.zeros(4, 32, 32), torch.zeros(4, 32, 32)
    red[0], blue[2], red[3], blue[3] = 1, 1, 1, 1
    actors = [Actor([pose(x, 0.5, 0.4)], *drawn_as(colour)) for x, colour in ((0.4, red), (0.6, blue))]
    for order, expected in ((actors, (0, 0, 1, 1)), (actors[::-1], (1, 0, 0, 1))):
        pixels = figure_pixels(order, 0, 0, 8, area())[0]
        assert pixels[:, 48, 80].tolist() == pytest.approx(expected)
        assert pixels[:, 48, 48].tolist() == pytest.approx((1, 0, 0, 1))
        assert pixels[:, 48, 112].tolist() == pytest.approx((0, 0, 1, 1))
        drawn = traced(order, *LATENTS, area())
        assert torch.equal(drawn.there, torch.ones(1, 1, 2, 1, 1))
        assert drawn.cover[0, 0, 0, 6, 5:15].min() > 0.9
