"""diorama's autoencoder: causal in time, local in space, linear parts inverse to each other."""

import pytest
import torch

from sora_cli.model.vae.patch import PatchVAE
from sora_weights.spec import PatchVAESpec

SPEC = PatchVAESpec(channels=6, width=16, depth=2, tail_width=8, tail_depth=1)


@pytest.fixture(scope="module")
def vae() -> PatchVAE:
    torch.manual_seed(0)
    network = PatchVAE(SPEC)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.copy_(torch.randn_like(tensor) * 0.1 + 0.05)
    return network.eval().requires_grad_(False)


def test_one_frame_encodes_as_the_first_frame_of_a_clip(vae):
    clip = torch.rand(2, 3, 9, 32, 24) * 2 - 1
    assert torch.equal(vae.encode(clip[:, :, :1])[:, :, 0], vae.encode(clip)[:, :, 0])


def test_later_frames_never_change_earlier_latents(vae):
    clip = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    other = clip.clone()
    other[:, :, 5:] = 0
    assert torch.equal(vae.encode(clip)[:, :, :2], vae.encode(other)[:, :, :2])


def test_decoding_sees_this_latent_frame_and_the_one_before_only(vae):
    latents = torch.randn(1, 6, 5, 4, 4)
    changed = latents.clone()
    changed[:, :, 2] += 1
    difference = (vae.decode(latents) - vae.decode(changed)).abs().amax((0, 1, 3, 4))
    touched = difference > 0
    assert touched.tolist() == [False] * 5 + [True] * 8 + [False] * 4


def test_a_latent_reaches_no_further_than_the_halo(vae):
    latents = torch.randn(1, 6, 1, 21, 21)
    changed = latents.clone()
    changed[..., 10, 10] += 1
    touched = (vae.decode(latents) - vae.decode(changed)).abs().amax((0, 1, 2)) > 0
    rows = touched.any(1).nonzero()
    assert rows.min() >= (10 - vae.halo) * 8
    assert rows.max() < (11 + vae.halo) * 8


def test_full_basis_makes_the_linear_part_lossless():
    values = 3 * 4 * 8 * 8
    network = PatchVAE(PatchVAESpec(channels=values, width=8, depth=0, tail_width=8, tail_depth=0))
    network.mean.normal_(generator=torch.Generator().manual_seed(1))
    network.basis.copy_(torch.linalg.qr(torch.randn(values, values)).Q)
    network.scale.uniform_(0.5, 2.0)
    clip = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(network.decode(network.encode(clip)), clip, atol=1e-3)
