"""The artwork is put where attention says that it is, and composed with what lies behind it."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from sora_cli.model.placing import Placing, _moving, drawn, entries, fit_placement
from sora_cli.model.recall import Sheet
from sora_cli.model.vae.patch import PatchVAE
from sora_weights.spec import DiTSpec, PatchVAESpec

SPEC = DiTSpec(channels=8, width=16, heads=2, text_width=6, figures=2, sheet=4, picture=16)


def shown(column: float, row: float, half: float, facing: float, size: tuple[int, int]) -> torch.Tensor:
    """Which points of the artwork latents of a frame show, (2, 1, 1, h, w), that is placed so."""
    x = (torch.arange(size[1]) + 0.5 - column) / half * facing
    y = (torch.arange(size[0]) + 0.5 - row) / half
    return torch.stack([x.expand(*size), y[:, None].expand(*size)])[:, None, None]


@pytest.mark.parametrize("facing", [1.0, -1.0])
@pytest.mark.parametrize(("column", "row", "half"), [(7.3, 5.1, 3.2), (2.0, 9.5, 6.0), (12.4, 3.3, 1.7)])
def test_a_placement_is_found_from_the_points_that_latents_show(column, row, half, facing):
    points = shown(column, row, half, facing, (12, 16))
    cover = ((points[0].abs() < 1) & (points[1].abs() < 1)).float()
    noisy = points + 0.02 * torch.randn(points.shape, generator=torch.Generator().manual_seed(0))
    found = fit_placement(noisy, cover)
    assert found.facing.item() == facing
    assert [found.column.item(), found.row.item(), found.half.item()] == pytest.approx([column, row, half], abs=0.15)
    assert found.trust.item() > 0.8


def test_points_that_fit_no_placement_are_not_trusted():
    points = torch.rand(2, 1, 1, 12, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert fit_placement(points, torch.ones(1, 1, 12, 16)).trust.item() < 0.05


def test_where_nothing_is_figure_nothing_is_trusted():
    found = fit_placement(shown(5, 5, 3, 1, (12, 16)), torch.zeros(1, 1, 12, 16))
    assert found.trust.item() < 1e-3
    assert torch.isfinite(found.column + found.row + found.half).all()


def test_a_picture_at_its_own_size_is_drawn_as_it_is():
    picture = torch.rand(1, 4, 16, 16)
    one = torch.ones(1, 1)
    same = drawn(picture, 8 * one, 8 * one, 8 * one, one, (16, 16))
    assert torch.allclose(same[:, 0], picture, atol=1e-5)
    mirrored = drawn(picture, 8 * one, 8 * one, 8 * one, -one, (16, 16))
    assert torch.allclose(mirrored[:, 0], picture.flip(-1), atol=1e-5)


def test_a_picture_that_is_made_smaller_keeps_its_mean():
    picture = torch.rand(1, 4, 64, 64)
    one = torch.ones(1, 1)
    small = drawn(picture, 8 * one, 8 * one, 8 * one, one, (16, 16))
    assert torch.allclose(small.mean((1, 3, 4)), picture.mean((2, 3)), atol=0.03)


def test_frames_of_a_latent_move_at_the_speed_around_them():
    seconds = torch.tensor([[0.0, 0.1, 0.2, 0.2]])
    later = torch.tensor([[[-0.05, 0.05]]]).expand(1, 4, 2) * (seconds > 0)[..., None]
    moved = _moving(torch.tensor([[0.0, 1.0, 2.0, 9.0]]), seconds, later)[0]
    assert torch.allclose(moved[:6], torch.tensor([0.0, 0.0, 0.5, 1.5, 1.5, 2.5]), atol=1e-4)


def awake() -> tuple[Placing, PatchVAE]:
    """A layer with artwork, for an autoencoder whose linear part loses nothing that it can hold."""
    torch.manual_seed(0)
    vae, placing = PatchVAE(PatchVAESpec(channels=8, width=8, depth=1, tail_width=8)), Placing(SPEC)
    vae.basis.copy_(torch.linalg.qr(torch.randn(768, 8)).Q.T)
    vae.scale.uniform_(0.5, 2)
    for name in ("basis", "scale", "mean"):
        getattr(placing, name).copy_(getattr(vae, name))
    placing.pictures.uniform_()
    placing.pictures[:, :3] *= placing.pictures[:, 3:]
    return placing, vae


def test_composing_adds_what_encoding_the_composed_picture_would():
    placing, vae = awake()
    clean = torch.randn(1, 8, 1, 4, 4)
    figure = torch.rand(1, 1, 4, 4, 32, 32)
    behind = vae._linear_inverse(clean[:, :, 0])  # (1, 3, 4, 32, 32)
    alpha = rearrange(figure[:, 0, :, 3:], "b T c h w -> b c T h w")
    colour = rearrange(figure[:, 0, :, :3], "b T c h w -> b c T h w")
    wanted = vae.encode_group(2 * colour - alpha + (1 - alpha) * behind)
    added = placing._composed(figure, torch.ones(1, 1, 1, 3, 1, 1), clean)
    assert torch.allclose(clean + added, wanted, atol=1e-4)


def test_nothing_found_adds_nothing():
    placing, _ = awake()
    tokens, looked = torch.randn(1, 4, 16), torch.rand(1, 4, 4, 32).softmax(-1)
    for found in (0.0, 1.0):
        sheet = Sheet(torch.tensor([1]), torch.zeros(1, 32, 16), torch.zeros(1, 32, 9), torch.full((1, 1, 1), found))
        added, logits = placing(
            tokens,
            looked,
            sheet,
            torch.randn(1, 16),
            torch.zeros(1, 1),
            torch.ones(1),
            torch.randn(1, 8, 1, 4, 4),
            None,
        )
        assert logits.shape == (1, 1, 4, 4)
        assert (added.abs().max().item() > 0) == bool(found)


def test_where_to_look_learns_from_what_is_drawn():
    """Gradients reach the attention through the fitted placement."""
    placing, _ = awake()
    points = shown(4, 4, 2.5, 1, (8, 8))
    near = -((points.permute(1, 2, 3, 4, 0)[..., None, :] - entries(4, points.device)[:16]) ** 2).sum(-1) * 40
    scores = F.pad(near, (0, 16), value=-50.0).requires_grad_()
    looked = rearrange(scores.softmax(-1), "b t (h p) (w q) m -> b (p q) (t h w) m", p=2, q=2)
    sheet = Sheet(torch.tensor([0]), torch.zeros(1, 32, 16), torch.zeros(1, 32, 9), torch.ones(1, 1, 1))
    added, _ = placing(
        torch.randn(1, 16, 16),
        looked,
        sheet,
        torch.randn(1, 16),
        torch.zeros(1, 1),
        torch.ones(1),
        torch.randn(1, 8, 1, 8, 8),
        None,
    )
    added.square().sum().backward()
    assert scores.grad.abs().max() > 0
