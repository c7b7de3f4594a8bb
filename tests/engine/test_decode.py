"""Decoding: tiles, streams and crops give the pixels that decoding whole gives."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_cli.engine.canvas import Grid, lay_out
from sora_cli.engine.decode import decode_groups, frames_of, in_smaller_tiles, steadied, tiles
from sora_cli.engine.devices import choose_precision
from sora_cli.engine.networks import load_vae
from sora_cli.model.vae.patch import PatchVAE
from sora_weights.registry import find_model
from sora_weights.spec import PatchVAESpec

GRID = Grid(space=8, patch=16, time=4)


@pytest.fixture(scope="module")
def vae() -> PatchVAE:
    """A small autoencoder with every weight awake, zero-initialised ones too."""
    torch.manual_seed(0)
    network = PatchVAE(PatchVAESpec(channels=6, width=16, depth=2, tail_width=8, tail_depth=1))
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.copy_(torch.randn_like(tensor) * 0.1 + 0.05)
    return network.eval()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(1, 24), st.integers(0, 2**31))
def test_tiled_decode_equals_whole_decode(vae, rows: int, columns: int, frames: int, side: int, seed: int):
    latents = torch.randn(1, 6, frames, rows, columns, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        whole = vae.decode(latents)[0].clamp(-1, 1)
    tiled = torch.cat(list(decode_groups(vae, latents.unbind(2), side))).transpose(0, 1)
    assert whole.shape == tiled.shape == (3, 4 * frames - 3, rows * 8, columns * 8)
    assert (whole - tiled).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dioramas_tiles_change_no_bit(dtype: str):
    model = find_model("diorama")
    network = load_vae(model, "cpu", choose_precision(dtype, "cpu", model))
    assert isinstance(network, PatchVAE)
    latent = torch.randn(1, 32, 34, 52, generator=torch.Generator().manual_seed(0))  # leaves narrow tiles over
    whole, *tiled = (next(iter(decode_groups(network, [latent], side))) for side in (96, 32, 16))
    assert all(torch.equal(whole, each) for each in tiled)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_tiles_cover_the_grid_once(rows: int, columns: int, side: int):
    covered = np.zeros((rows, columns), dtype=int)
    for tile in tiles(rows, columns, side, 4):
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
        assert 0 <= tile.outer_top <= tile.top < tile.bottom <= tile.outer_bottom <= rows
        assert 0 <= tile.outer_left <= tile.left < tile.right <= tile.outer_right <= columns
    assert (covered == 1).all()


@pytest.mark.parametrize(("width", "height", "frames"), [(250, 142, 1), (17, 33, 2), (64, 48, 9), (40, 100, 8)])
def test_frames_are_exactly_as_many_and_as_large_as_asked(vae, width: int, height: int, frames: int):
    canvas = lay_out(width, height, frames, GRID, 10**9)
    latents = torch.randn(1, 6, canvas.latent_frames, *canvas.levels[-1].latents(GRID))
    made = list(frames_of(decode_groups(vae, latents.unbind(2), 4), canvas))
    assert len(made) == frames
    assert {(frame.shape, frame.dtype.name) for frame in made} == {((height, width, 3), "uint8")}


def test_a_jump_of_texture_between_groups_becomes_a_ramp():
    levels = [torch.full((n, 3, 2, 2), level) for n, level in ((1, 0.0), (4, 0.0), (4, 0.8), (4, 0.8))]
    values = torch.cat(list(steadied(levels)))[:, 0, 0, 0]
    steps = values.diff()
    assert torch.allclose(steps, torch.tensor([0, 0, 0.1, 0.2, 0.2, 0.2, 0.1, 0, 0, 0, 0, 0]), atol=1e-6)


def test_even_movement_is_left_as_it_is():
    ramp = torch.linspace(-0.9, 0.9, 13).view(13, 1, 1, 1).expand(13, 3, 2, 2)
    groups = [part.clone() for part in (ramp[:1], ramp[1:5], ramp[5:9], ramp[9:])]
    assert torch.allclose(torch.cat(list(steadied(groups))), ramp, atol=1e-6)


def test_padding_is_cut_from_both_sides(vae):
    canvas = lay_out(20, 16, 1, GRID, 10**9)
    latents = torch.randn(1, 6, 1, 2, 4)
    with torch.no_grad():
        whole = (vae.decode(latents)[0, :, 0].clamp(-1, 1) + 1) * 127.5
    (frame,) = frames_of(decode_groups(vae, latents.unbind(2), 8), canvas)
    expected = whole[:, :, 6:26].permute(1, 2, 0).round()
    assert np.abs(frame.astype(float) - expected.numpy()).max() <= 1


def _decoder(fits: dict[int, int], error: Exception) -> Callable[[int], Iterator[torch.Tensor]]:
    """A decoder of five groups that fails with `error` after as many as fit in tiles of a side."""

    def decode(side: int) -> Iterator[torch.Tensor]:
        for index in range(5):
            if index >= fits.get(side, 0):
                raise error
            yield torch.tensor(index)

    return decode


def test_what_memory_runs_out_for_is_decoded_in_smaller_tiles_and_told():
    told: list[int] = []
    groups = in_smaller_tiles(_decoder({64: 2, 48: 1, 32: 5}, MemoryError()), 64, told.append)
    assert [int(group) for group in groups] == [0, 1, 2, 3, 4]
    assert told == [48, 32]


@pytest.mark.parametrize("error", [MemoryError(), ValueError("a bug")])
def test_what_smaller_tiles_do_not_mend_is_raised(error: Exception):
    with pytest.raises(type(error)):
        list(in_smaller_tiles(_decoder({}, error), 16, lambda side: None))
