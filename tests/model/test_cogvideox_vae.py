"""CogVideoX's autoencoder codes as the reference does, chunk by chunk, and in strips as in one piece."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from einops import rearrange
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sora_cli.model.vae import cogvideox_layers
from sora_cli.model.vae.cogvideox import SPACE, TIME, CogVideoXVAE, chunk_sizes
from sora_cli.model.vae.cogvideox_layers import Chunk, spans
from sora_weights.errors import WeightsError
from sora_weights.header import Entry
from sora_weights.reader import WeightFiles, load_into, match, open_weights
from sora_weights.rules.cogvideox_vae import KEYS
from sora_weights.spec import CogVideoXVAESpec

TINY = CogVideoXVAESpec(channels=4, widths=(8, 16, 16, 32), depth=1, groups=4)
OTHERS = {
    "deeper": replace(TINY, channels=3, depth=2, groups=8, scaling=0.7),
    "three levels, time halved once": replace(TINY, widths=(8, 24, 16), time=2, eps=1e-3),
    "time never halved": replace(TINY, widths=(8, 16), time=1),
}
BOUND = 1e-5
SCRATCH = Path("unused")


def reference(spec: CogVideoXVAESpec) -> AutoencoderKLCogVideoX:
    levels = len(spec.widths)
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * levels,
        up_block_types=("CogVideoXUpBlock3D",) * levels,
        block_out_channels=spec.widths,
        latent_channels=spec.channels,
        layers_per_block=spec.depth,
        norm_eps=spec.eps,
        norm_num_groups=spec.groups,
        temporal_compression_ratio=spec.time,
        scaling_factor=spec.scaling,
    )


def awake(spec: CogVideoXVAESpec) -> AutoencoderKLCogVideoX:
    torch.manual_seed(0)
    network = reference(spec)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


def ours(spec: CogVideoXVAESpec, filled_like: AutoencoderKLCogVideoX) -> CogVideoXVAE:
    with torch.device("meta"):
        network = CogVideoXVAE(spec)
    network.load_state_dict(KEYS.apply(filled_like.state_dict()), assign=True)
    return network


@pytest.fixture(scope="module")
def oracle() -> AutoencoderKLCogVideoX:
    return awake(TINY)


@pytest.fixture(scope="module")
def vae(oracle: AutoencoderKLCogVideoX) -> CogVideoXVAE:
    return ours(TINY, oracle)


@pytest.fixture
def thin_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let strips be as thin as asked, though tiny networks gain nothing from it."""
    monkeypatch.setattr(cogvideox_layers, "LEAST_STRIP", 1)


def clip(count: int, height: int = 24, width: int = 40, seed: int = 1) -> Tensor:
    return torch.rand(1, 3, count, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def some_latents(count: int, rows: int = 3, columns: int = 5, channels: int = TINY.channels, seed: int = 2) -> Tensor:
    return torch.randn(1, channels, count, rows, columns, generator=torch.Generator().manual_seed(seed))


def encoded(vae: CogVideoXVAE, video: Tensor, side: int | None = None) -> Tensor:
    """Means and logarithms of variances, (1, 2 c, t, h, w)."""
    pairs = vae.encode(video.unbind(2), video.shape[2], side)
    return torch.stack([torch.cat(pair, 1) for pair in pairs], 2)


def decoded(vae: CogVideoXVAE, latents: Tensor, side: int = 99) -> Tensor:
    """Frames (1, 3, T, H, W)."""
    chunks = list(vae.decode(latents.unbind(2), latents.shape[2], side, SCRATCH))
    return rearrange(torch.cat(chunks), "T c H W -> 1 c T H W")


def reference_encoded(oracle: AutoencoderKLCogVideoX, video: Tensor) -> Tensor:
    distribution = oracle.encode(video).latent_dist
    return torch.cat([distribution.mean, distribution.logvar], 1)


def reference_decoded(oracle: AutoencoderKLCogVideoX, latents: Tensor) -> Tensor:
    frames = oracle.decode(1 / oracle.config.scaling_factor * latents).sample
    return frames.clamp(-1, 1).float()


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return ((found.float() - wanted.float()).norm() / wanted.float().norm()).item()


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 12, 17])
def test_frames_encode_as_in_the_reference(vae: CogVideoXVAE, oracle: AutoencoderKLCogVideoX, count: int) -> None:
    assert error(encoded(vae, clip(count)), reference_encoded(oracle, clip(count))) < BOUND


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_latents_decode_as_in_the_reference(vae: CogVideoXVAE, oracle: AutoencoderKLCogVideoX, count: int) -> None:
    assert error(decoded(vae, some_latents(count)), reference_decoded(oracle, some_latents(count))) < BOUND


@pytest.mark.parametrize("spec", OTHERS.values(), ids=OTHERS.keys())
def test_other_shapes_of_the_network_code_as_in_the_reference(spec: CogVideoXVAESpec) -> None:
    oracle = awake(spec)
    vae = ours(spec, oracle)
    latents = some_latents(3, channels=spec.channels)
    assert error(encoded(vae, clip(9)), reference_encoded(oracle, clip(9))) < BOUND
    assert error(decoded(vae, latents), reference_decoded(oracle, latents)) < BOUND


@pytest.mark.parametrize("sides", [(8, 8), (8, 24), (40, 8)])
def test_pictures_of_one_latent_row_or_column_code_as_in_the_reference(
    vae: CogVideoXVAE, oracle: AutoencoderKLCogVideoX, sides: tuple[int, int]
) -> None:
    video, latents = clip(9, *sides), some_latents(3, *(side // SPACE for side in sides))
    assert error(encoded(vae, video), reference_encoded(oracle, video)) < BOUND
    assert error(decoded(vae, latents), reference_decoded(oracle, latents)) < BOUND


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_further_from_the_truth_than_the_reference(
    oracle: AutoencoderKLCogVideoX, dtype: torch.dtype
) -> None:
    half = awake(TINY).to(dtype)
    vae = ours(TINY, half)
    video, latents = clip(9), some_latents(3)
    means, theirs = encoded(vae, video), reference_encoded(half, video.to(dtype))
    truth = reference_encoded(oracle, video)
    assert means.dtype == dtype
    assert error(means, truth) <= 1.1 * error(theirs, truth)
    truth = reference_decoded(oracle, latents)
    assert error(decoded(vae, latents), truth) <= 1.1 * error(reference_decoded(half, latents.to(dtype)), truth)


@pytest.mark.usefixtures("thin_strips")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(side=st.integers(1, 5), rows=st.integers(1, 5), columns=st.integers(1, 3), count=st.integers(1, 5))
def test_decoding_in_strips_equals_decoding_whole(
    vae: CogVideoXVAE, side: int, rows: int, columns: int, count: int
) -> None:
    latents = some_latents(count, rows, columns)
    assert error(decoded(vae, latents, side), decoded(vae, latents)) < BOUND


@pytest.mark.usefixtures("thin_strips")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(side=st.integers(1, 5), rows=st.integers(1, 5), columns=st.integers(1, 3), count=st.integers(1, 17))
def test_encoding_in_strips_equals_encoding_whole(
    vae: CogVideoXVAE, side: int, rows: int, columns: int, count: int
) -> None:
    video = clip(count, rows * SPACE, columns * SPACE)
    assert error(encoded(vae, video, side), encoded(vae, video)) < BOUND


@given(st.integers(1, 300), st.integers(1, 80), st.integers(1, 80))
def test_strips_cover_the_picture_from_even_rows_on(height: int, rows: int, least: int) -> None:
    strips = list(Chunk({}, rows).strips(height, least))
    assert [row for top, bottom in strips for row in range(top, bottom)] == list(range(height))
    assert all(top % 2 == 0 < bottom - top for top, bottom in strips)
    highest, lowest = max(b - a for a, b in strips), min(b - a for a, b in strips)
    assert highest <= max(2 * least, rows, 2) + 2
    assert len(strips) == 1 or lowest >= least - 3


@pytest.mark.usefixtures("thin_strips")
def test_convolutions_never_see_more_than_a_strip_and_a_row_around_it(
    vae: CogVideoXVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def watched(x: Tensor, *rest: object, **options: object) -> Tensor:
        seen.append(x.shape[-2])
        return conv3d(x, *rest, **options)

    conv3d = torch.nn.functional.conv3d
    monkeypatch.setattr(torch.nn.functional, "conv3d", watched)
    decoded(vae, some_latents(3, rows=6), side=1)
    assert max(seen) == SPACE + 2


def test_later_frames_never_change_the_latents_of_earlier_chunks(vae: CogVideoXVAE) -> None:
    assert torch.equal(encoded(vae, clip(17)[:, :, :9]), encoded(vae, clip(17))[:, :, :3])


def test_later_latents_never_change_the_frames_of_earlier_chunks(vae: CogVideoXVAE) -> None:
    latents = some_latents(5)
    assert torch.equal(decoded(vae, latents[:, :, :3]), decoded(vae, latents)[:, :, :9])


def test_streams_that_take_turns_do_not_disturb_each_other(vae: CogVideoXVAE) -> None:
    first, second = some_latents(5, seed=3), some_latents(5, seed=4)
    turns = zip(*(vae.decode(z.unbind(2), 5, 9, SCRATCH) for z in (first, second)), strict=True)
    for chunks, latents in zip(zip(*turns, strict=True), (first, second), strict=True):
        assert torch.equal(rearrange(torch.cat(chunks), "T c H W -> 1 c T H W"), decoded(vae, latents))


def test_a_chunk_is_read_only_when_its_turn_comes(vae: CogVideoXVAE) -> None:
    read = 0

    def counted(tensors: Tensor) -> Iterator[Tensor]:
        nonlocal read
        for tensor in tensors.unbind(2):
            read += 1
            yield tensor

    reads = []
    for frames in vae.decode(counted(some_latents(7)), 7, 9, SCRATCH):
        reads.append((read, len(frames)))
    assert reads == [(3, 9), (5, 8), (7, 8)]
    read = 0
    pairs = vae.encode(counted(clip(17)), 17)
    assert [read for _ in pairs] == [9, 9, 9, 17, 17]


@given(st.integers(1, 200), st.integers(1, 9))
def test_chunks_cover_a_stream_and_the_first_takes_what_is_left_over(count: int, size: int) -> None:
    first, *rest = chunk_sizes(count, size)
    assert first + sum(rest) == count
    assert rest == [size] * len(rest)
    assert first < 2 * size


@pytest.mark.parametrize(
    ("frames", "steps", "lengths"),
    [(9, 3, [1, 4, 4]), (8, 2, [4, 4]), (3, 3, [1, 1, 1]), (2, 2, [1, 1]), (1, 1, [1]), (9, 1, [9]), (5, 3, [1, 2, 2])],
)
def test_frames_are_shared_by_the_latent_frames_they_come_from(frames: int, steps: int, lengths: list[int]) -> None:
    shares = spans(frames, steps)
    assert [share.stop - share.start for share in shares] == lengths
    assert [index for share in shares for index in range(frames)[share]] == list(range(frames))


def test_denoiser_sees_scaled_latents() -> None:
    vae, inverted = (CogVideoXVAE(replace(TINY, scaling=0.7, inverted_condition=flag)) for flag in (False, True))
    latents = some_latents(2)
    assert torch.equal(vae.normalise(latents), latents * 0.7)
    assert torch.equal(vae.condition(latents), latents * 0.7)
    assert torch.equal(inverted.normalise(latents), latents * 0.7)
    assert torch.equal(inverted.condition(latents), 1 / 0.7 * latents)
    assert torch.allclose(vae.denormalise(vae.normalise(latents)), latents)


def test_grid_follows_from_the_spec() -> None:
    with torch.device("meta"):
        released, small = CogVideoXVAE(CogVideoXVAESpec()), CogVideoXVAE(replace(TINY, widths=(8, 8), time=2))
    assert (released.space, released.time) == (SPACE, TIME)
    assert (small.space, small.time) == (2, 2)


def test_what_can_not_be_coded_is_refused_by_value(vae: CogVideoXVAE) -> None:
    with pytest.raises(ValueError, match="0 frames: at least 1"):
        next(vae.encode([], 0))
    with pytest.raises(ValueError, match="fewer frames than the 9 announced"):
        next(vae.encode(clip(3).unbind(2), 9))
    with pytest.raises(ValueError, match="frames of 44x24: multiples of 8"):
        next(vae.encode(clip(1, 24, 44).unbind(2), 1))
    with pytest.raises(ValueError, match="fewer frames than the 2 announced"):
        next(vae.decode(some_latents(1).unbind(2), 2, 9, SCRATCH))
    with pytest.raises(ValueError, match="strips of 0 latents: at least 1"):
        next(vae.decode(some_latents(1).unbind(2), 1, 0, SCRATCH))


def published() -> WeightFiles:
    """The list of keys and shapes of a released file: the reference at its published size, without weights."""
    with torch.device("meta"):
        network = AutoencoderKLCogVideoX()
    path = Path("diffusion_pytorch_model.safetensors")
    entries = {key: Entry(key, "BF16", tuple(x.shape), path, 0) for key, x in network.state_dict().items()}
    return WeightFiles(path, entries, (path,))


def test_every_key_of_the_released_files_fits_and_none_is_left_over() -> None:
    with torch.device("meta"):
        network = CogVideoXVAE(CogVideoXVAESpec())
    files = published()
    steps = match(network, files, KEYS)
    assert sorted(key for step in steps for key in step.sources) == sorted(files.entries)
    assert sorted(name for step in steps for name in step.targets) == sorted(network.state_dict())


@pytest.mark.parametrize(
    "key",
    [
        "decoder.up_blocks.3.resnets.0.conv_shortcut.weight",
        "encoder.norm_out.bias",
        "decoder.norm_out.conv_b.conv.bias",
    ],
)
def test_missing_key_is_named_as_in_the_file(key: str) -> None:
    with torch.device("meta"):
        network = CogVideoXVAE(CogVideoXVAESpec())
    files = published()
    kept = {name: entry for name, entry in files.entries.items() if name != key}
    with pytest.raises(WeightsError, match=f"key {key} is missing".replace(".", r"\.")):
        match(network, replace(files, entries=kept), KEYS)


def test_saved_folder_fills_the_network_and_can_be_written_back(
    oracle: AutoencoderKLCogVideoX, vae: CogVideoXVAE, tmp_path: Path
) -> None:
    oracle.save_pretrained(tmp_path)
    with torch.device("meta"):
        network = CogVideoXVAE(TINY)
    load_into(network, open_weights(tmp_path), KEYS)
    assert torch.equal(decoded(network, some_latents(3)), decoded(vae, some_latents(3)))
    back = KEYS.inverse().apply(network.state_dict())
    assert back.keys() == oracle.state_dict().keys()
    assert all(torch.equal(tensor, back[key]) for key, tensor in oracle.state_dict().items())
