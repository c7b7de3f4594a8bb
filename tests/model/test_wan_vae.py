"""Wan's autoencoder: the reference's latents and frames, as a stream, and in tiles the same as whole."""

from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from diffusers import AutoencoderKLWan
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from sora_cli.model.vae.wan import WanVAE
from sora_weights.header import Entry
from sora_weights.reader import WeightFiles, load_into, match, open_weights
from sora_weights.rules.wan_vae import KEYS
from sora_weights.spec import WanVAESpec

CHANNELS = 4
SPEC = WanVAESpec(
    channels=CHANNELS, width=8, decoder_width=8, depth=1, mean=(0.5, -1.0, 0.0, 2.0), std=(2.0, 0.5, 1.0, 3.0)
)


def on_meta(spec: WanVAESpec) -> WanVAE:
    with torch.device("meta"):
        return WanVAE(spec).eval()


def awake(network: torch.nn.Module, seed: int) -> None:
    """Noise on every parameter, so that none is neutral."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += torch.randn(parameter.shape, generator=draw) * 0.05


def reference(spec: WanVAESpec, **more: object) -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=spec.width,
        decoder_base_dim=spec.decoder_width,
        z_dim=spec.channels,
        dim_mult=list(spec.multipliers),
        num_res_blocks=spec.depth,
        temperal_downsample=list(spec.halves_time),
        latents_mean=list(spec.mean),
        latents_std=list(spec.std),
        **more,
    ).eval()


@pytest.fixture(scope="module")
def oracle() -> AutoencoderKLWan:
    torch.manual_seed(0)
    network = reference(SPEC)
    awake(network, 1)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def weights(oracle: AutoencoderKLWan, tmp_path_factory: pytest.TempPathFactory) -> WeightFiles:
    path = tmp_path_factory.mktemp("wan") / "vae.safetensors"
    save_file(oracle.state_dict(), path)
    return open_weights(path)


@pytest.fixture(scope="module")
def vae(weights: WeightFiles) -> WanVAE:
    return loaded(weights, torch.float32)


def loaded(weights: WeightFiles, dtype: torch.dtype) -> WanVAE:
    network = on_meta(SPEC)
    load_into(network, weights, KEYS, dtype)
    return network


def clip(frames: int, height: int = 24, width: int = 40, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noise(frames: int, rows: int = 3, columns: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(1, CHANNELS, frames, rows, columns, generator=torch.Generator().manual_seed(seed))


def decoded(vae: WanVAE, latents: Tensor, side: int, scratch: Path) -> Tensor:
    """(1, c, t, h, w) -> (T, 3, H, W)."""
    return torch.cat(list(vae.decode(iter(latents.unbind(2)), side, scratch)))


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("frames", [1, 5, 13])
@pytest.mark.parametrize(("height", "width"), [(24, 40), (56, 8)])
def test_encoding_is_the_references(vae, oracle, frames: int, height: int, width: int):
    video = clip(frames, height, width)
    theirs = oracle.encode(video).latent_dist
    mean, logvar = (torch.stack(parts, 2) for parts in zip(*vae.encode(iter(video.unbind(2))), strict=True))
    assert error(mean, theirs.mean) < 1e-5
    assert error(logvar, theirs.logvar) < 1e-5


@pytest.mark.parametrize("latent_frames", [1, 2, 4])
@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (7, 1)])
def test_decoding_is_the_references(vae, oracle, tmp_path: Path, latent_frames: int, rows: int, columns: int):
    latents = noise(latent_frames, rows, columns)
    theirs = oracle.decode(vae.denormalise(latents)).sample[0].transpose(0, 1)
    groups = list(vae.decode(iter(latents.unbind(2)), 8, tmp_path))
    assert [len(group) for group in groups] == [1] + [4] * (latent_frames - 1)
    assert (torch.cat(groups).dtype, groups[-1].is_contiguous()) == (torch.float32, True)
    assert theirs.std() > 0.1
    assert (theirs.abs() < 1).float().mean() > 0.5
    assert error(torch.cat(groups), theirs) < 1e-5


def test_one_frame_encodes_as_the_first_frame_of_a_clip(vae):
    video = clip(9)
    (alone,) = vae.encode([video[:, :, 0]])
    first = next(vae.encode(iter(video.unbind(2))))
    assert all(torch.equal(one, other) for one, other in zip(alone, first, strict=True))


def test_encoding_takes_no_more_frames_than_it_needs(vae):
    frames = iter(clip(9).unbind(2))
    latents = vae.encode(frames)
    next(latents)
    next(latents)
    assert len(list(frames)) == 4


@pytest.mark.parametrize("frames", [0, 2, 4, 7])
def test_frames_that_are_not_one_and_fours_are_refused(vae, frames: int):
    with pytest.raises(ValueError, match=f"^{frames} frames to encode: one more than a multiple of 4$"):
        list(vae.encode(iter(clip(max(frames, 1)).unbind(2)[:frames])))


def test_later_latents_never_change_earlier_frames(vae, tmp_path: Path):
    latents = noise(4)
    other = latents.clone()
    other[:, :, 2:] = 0
    assert torch.equal(decoded(vae, latents, 8, tmp_path)[:5], decoded(vae, other, 8, tmp_path)[:5])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 3), st.integers(1, 12), st.integers(0, 2**31))
def test_tiled_decode_equals_whole_decode(vae, rows: int, columns: int, frames: int, side: int, seed: int):
    side = max(side, -(-rows // 4), -(-columns // 4))
    latents = noise(frames, rows, columns, seed)
    with TemporaryDirectory() as scratch:
        tiled = decoded(vae, latents, side, Path(scratch))
        whole = decoded(vae, latents, 20, Path(scratch))
        assert not list(Path(scratch).iterdir())
    assert whole.shape == tiled.shape == (4 * frames - 3, 3, rows * 8, columns * 8)
    assert (whole - tiled).abs().max() < 5e-5


def test_tiles_of_one_latent_decode_to_the_whole(vae, tmp_path: Path):
    latents = noise(2, 5, 4)
    assert (decoded(vae, latents, 1, tmp_path) - decoded(vae, latents, 5, tmp_path)).abs().max() < 5e-5


def test_deeper_levels_have_larger_halos(tmp_path: Path):
    torch.manual_seed(0)
    network = reference(
        spec := WanVAESpec(channels=CHANNELS, width=8, decoder_width=4, mean=(0.0,) * 4, std=(1.0,) * 4)
    )
    awake(network, 2)
    save_file(network.state_dict(), tmp_path / "vae.safetensors")
    load_into(vae := on_meta(spec), open_weights(tmp_path), KEYS)
    latents = noise(2, 3, 32)
    theirs = network.decode(latents).sample.detach()[0].transpose(0, 1)
    assert error(decoded(vae, latents, 2, tmp_path), theirs) < 1e-4


def test_one_tile_writes_nothing(vae, tmp_path: Path):
    for _ in vae.decode(iter(noise(2).unbind(2)), 5, tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_consumer_that_stops_leaves_no_files(vae, tmp_path: Path):
    frames = vae.decode(iter(noise(3).unbind(2)), 2, tmp_path)
    next(frames)
    assert list(tmp_path.iterdir())
    frames.close()
    assert not list(tmp_path.iterdir())


def test_latents_that_fail_halfway_leave_no_files(vae, tmp_path: Path):
    def broken():
        yield noise(1)[:, :, 0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(vae.decode(broken(), 2, tmp_path))
    assert not list(tmp_path.iterdir())


def test_no_latents_are_no_frames(vae, tmp_path: Path):
    assert not list(vae.decode([], 2, tmp_path))


def test_tiles_without_size_are_refused(vae, tmp_path: Path):
    with pytest.raises(ValueError, match="tiles of 0 latents: at least 1"):
        next(vae.decode(iter(noise(1).unbind(2)), 0, tmp_path))


@pytest.mark.parametrize("shape", [(1, CHANNELS, 3, 5), (1, CHANNELS, 2, 3, 5), (1, CHANNELS, 2, 2, 3, 5)])
def test_the_denoiser_sees_latents_of_mean_0_and_deviation_1(vae, shape: tuple[int, ...]):
    latents = torch.randn(shape)
    for channel, (mean, std) in enumerate(zip(SPEC.mean, SPEC.std, strict=True)):
        assert torch.allclose(vae.normalise(latents)[:, channel], (latents[:, channel] - mean) / std)
    assert torch.allclose(vae.denormalise(vae.normalise(latents)), latents, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_as_the_references(vae, oracle, weights, tmp_path: Path, dtype: torch.dtype):
    latents = noise(3)
    exact = decoded(vae, latents, 8, tmp_path)
    half = reference(SPEC)
    half.load_state_dict(oracle.state_dict())
    theirs = half.to(dtype).decode(vae.denormalise(latents).to(dtype)).sample.detach().float()[0].transpose(0, 1)
    network = loaded(weights, dtype)
    assert error(decoded(network, latents, 8, tmp_path), exact) < 2 * error(theirs, exact)
    assert error(decoded(network, latents, 2, tmp_path), exact) < 2 * error(theirs, exact)
    mean, logvar = next(network.encode(islice(clip(1).unbind(2), 1)))
    assert (mean.dtype, logvar.dtype) == (dtype, dtype)


def test_full_size_keys_are_exactly_wan_2_1s(tmp_path: Path):
    with torch.device("meta"):
        published = AutoencoderKLWan()
    path = tmp_path / "vae.safetensors"
    entries = {key: Entry(key, "F32", tuple(x.shape), path, 0) for key, x in published.state_dict().items()}
    steps = match(on_meta(WanVAESpec()), WeightFiles(path, entries, (path,)), KEYS)
    assert sorted(key for step in steps for key in step.sources) == sorted(entries)


def test_rules_lead_back_to_the_files_keys(oracle):
    published = oracle.state_dict()
    back = KEYS.inverse().apply(KEYS.apply(published))
    assert back.keys() == published.keys()
    assert all(torch.equal(back[key], published[key]) for key in published)


def test_other_factors_are_refused():
    with pytest.raises(ValueError, match="isn't 8x8x4"):
        on_meta(WanVAESpec(multipliers=(1, 2, 4)))
