"""Frozen facts about networks: what a model's files hold and how its parts are shaped."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from sora_weights.keymap import KeyMap
from sora_weights.store import sha256_of, sha256_of_sums


@dataclass(frozen=True, slots=True)
class Grid:
    """What a family's network and autoencoder can hold: pixels in a latent, pixels in a patch, frames in a latent."""

    space: int
    patch: int
    time: int

    def latent_frames(self, frames: int) -> int:
        """Latent frames that hold at least `frames` frames: one, then groups of `time`."""
        return 1 + math.ceil((frames - 1) / self.time)


@dataclass(frozen=True, slots=True)
class PatchVAESpec:
    """diorama's video autoencoder (`sora_cli.model.vae.patch`): its channels, widths and depths."""

    channels: int = 32
    width: int = 256
    depth: int = 2
    tail_width: int = 64
    tail_depth: int = 1


@dataclass(frozen=True, slots=True)
class RetouchSpec:
    """What draws diorama's figures sharp in decoded frames (`sora_cli.model.retouch`): its width and depth."""

    width: int = 48
    depth: int = 3


@dataclass(frozen=True, slots=True)
class DiTSpec:
    """diorama's diffusion transformer (`sora_cli.model.dit`).

    Tokens are `patch` x `patch` latents of one latent frame; a latent is `space` pixels wide and `time` frames long;
    prompts are padded to `text_tokens`. Its memory holds `figures`, each under up to `names`, as pictures of `artwork`
    x `artwork` pixels and in `views` of `sheet` x `sheet` latents. Courses are denoised by `course_depth` layers of
    `course_width`.
    """

    channels: int = 32
    patch: int = 2
    width: int = 384
    depth: int = 6
    heads: int = 6
    conv_width: int = 128
    text_width: int = 384
    text_tokens: int = 24
    figures: int = 100
    names: int = 5
    views: int = 2
    sheet: int = 8
    artwork: int = 256
    course_width: int = 128
    course_depth: int = 4
    space: int = 8
    time: int = 4


@dataclass(frozen=True, slots=True)
class TextSpec:
    """A BERT text encoder (MiniLM for diorama): sizes of its layers and of its vocabulary."""

    vocabulary: int
    width: int = 384
    depth: int = 6
    heads: int = 12
    inner: int = 1536
    positions: int = 64
    tokens: int = 24


@dataclass(frozen=True, slots=True)
class WanVAESpec:
    """Wan's video autoencoder (`sora_cli.model.vae.wan`); defaults are those of Wan 2.1.

    Level i is `multipliers[i]` times as wide as `width` (`decoder_width`) and has `depth` residual blocks;
    `halves_time` says at which of the steps between levels time is halved too. `mean` and `std` are the latents'
    own, one for each channel: the denoiser sees (latents - mean) / std.
    """

    channels: int = 16
    width: int = 96
    decoder_width: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    depth: int = 2
    halves_time: tuple[bool, ...] = (False, True, True)
    mean: tuple[float, ...] = (0.0,) * 16
    std: tuple[float, ...] = (1.0,) * 16


@dataclass(frozen=True, slots=True)
class CogVideoXVAESpec:
    """CogVideoX's video autoencoder (`sora_cli.model.vae.cogvideox`); defaults are those of CogVideoX 2B.

    Level i is `widths[i]` wide with `depth` residual blocks in the encoder, one more in the decoder; time is halved
    log2(`time`) times. The denoiser sees latents * `scaling`; a picture's condition latents are divided by it instead
    where `inverted_condition`.
    """

    channels: int = 16
    widths: tuple[int, ...] = (128, 256, 256, 512)
    depth: int = 3
    groups: int = 32
    eps: float = 1e-6
    time: int = 4
    scaling: float = 1.15258426
    inverted_condition: bool = False


@dataclass(frozen=True, slots=True)
class T5Spec:
    """A T5 or UMT5 encoder (Raffel et al. 2019; Chung et al. 2023), by the fields of its config.json.

    `kind` is "t5" or "umt5". Prompts are padded to `tokens`. With `masked` the padding is hidden from the encoder and
    its features are zeros; without, it is read like any other token. With `cleaned` a prompt's HTML entities and white
    space are tidied first.
    """

    kind: str
    vocabulary: int
    width: int
    head_width: int
    inner: int
    depth: int
    heads: int
    buckets: int
    distance: int
    activation: str
    eps: float
    tokens: int
    masked: bool
    cleaned: bool


@dataclass(frozen=True, slots=True)
class ClipVisionSpec:
    """A CLIP image encoder (Radford et al. 2021), by the fields of its config.json; features are those before the
    last layer.
    """

    width: int
    inner: int
    depth: int
    heads: int
    picture: int
    patch: int
    activation: str
    eps: float


@dataclass(frozen=True, slots=True)
class WanSpec:
    """Wan's diffusion transformer (`sora_cli.model.wan`), by the fields of its config.json.

    `channels` counts what the network is shown, latents and condition channels; `latents` what it predicts.
    `image_width` is the width of the picture's features where it also attends to a picture, else None;
    `image_tokens` counts the tokens of both pictures where it was trained on a first and a last one, else None.
    """

    channels: int
    latents: int
    patch: tuple[int, int, int]
    heads: int
    head_width: int
    depth: int
    inner: int
    text_width: int
    time_width: int
    image_width: int | None
    image_tokens: int | None
    cross_norm: bool
    eps: float

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.heads * self.head_width


@dataclass(frozen=True, slots=True)
class CogVideoXSpec:
    """CogVideoX's diffusion transformer (`sora_cli.model.cogvideox`), by the fields of its config.json.

    `channels` counts what the network is shown, `latents` what it predicts. `sample` is the (frames, rows, columns) of
    latents that it was trained at. Positions are rotary or added, and then learned or sines and cosines whose
    coordinates are divided by `space_scale` and `time_scale`.
    """

    channels: int
    latents: int
    patch: int
    heads: int
    head_width: int
    depth: int
    text_width: int
    text_tokens: int
    time_width: int
    sample: tuple[int, int, int]
    rotary: bool
    learned: bool
    space_scale: float
    time_scale: float
    attention_bias: bool
    patch_bias: bool
    eps: float

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.heads * self.head_width


WHOLE = 10**9  # larger than any side or count: one window holds everything


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """How a family is sampled; by default everything at once, at the size asked for, by the model's own scheduler.

    `native_area` in pixels is what the network composes best at; larger pictures are drafted there, enlarged and
    refined in `refine_steps` from noise level `refine_from`, and what is enlarged again in `finish_steps` from
    `finish_from`; windows whose detail is nowhere above `smooth` are only enlarged. A clip that is drawn over keeps its
    composition up to noise level `composed`. `window` and `context` count
    latent frames, `refine_context` those of refinement; `reach` and `overlap` count latents (rows, columns) of the
    windows in space. `shared_noise` is the share of the noise's variance that all frames have in common (Ge et al.
    2023, Preserve Your Own Correlation, arXiv:2305.10474, mixed noise). `noise_layout` is the order of axes in which
    the family's reference draws noise, in the network's own precision where `narrow_noise`. Beside known frames
    guidance is at most `known_guidance`: they say more than words. What is drawn goes on from noise level
    `handed_start` where these were drawn too, and where they are given but the network doesn't know what they show,
    from `given_start`, and scenery inside a mask, where what is around it goes on first, from `cleared_start`.
    `steady` evens out jumps of texture between the frames of one latent frame and the next. `reliance` on a memory of
    figures is added to what was learned, in logits: training shows noisy true latents, use the network's own; so is
    `persistence` where known frames stand still. Over what a family `paints` are styles painted that prompts ask for,
    since its networks know none.
    `solver` and `shift` count where a model brings no scheduler_config.json.
    """

    solver: str = "euler"
    shift: float = 1.0
    native_area: int = WHOLE**2
    window: int = WHOLE
    context: int = 0
    refine_context: int = 0
    reach: tuple[int, int] = (WHOLE, WHOLE)
    overlap: tuple[int, int] = (0, 0)
    refine_from: float = 0.5
    refine_steps: int = 0
    finish_from: float = 0.5
    composed: float = 0.5
    finish_steps: int = 0
    smooth: float = 0.0
    shared_noise: float = 0.0
    noise_layout: str = "b c t h w"
    narrow_noise: bool = False
    known_guidance: float = math.inf
    given_start: float = 1.0
    handed_start: float = 1.0
    cleared_start: float = 1.0
    steady: bool = False
    reliance: float = 0.0
    persistence: float = 0.0
    paints: bool = False

    def refinement(self, level: int) -> tuple[float, int]:
        """The noise level that refining level 1, 2, ... of a picture starts from, and its steps."""
        return (self.refine_from, self.refine_steps) if level == 1 else (self.finish_from, self.finish_steps)


DenoiserSpec = DiTSpec | WanSpec | CogVideoXSpec
AutoencoderSpec = PatchVAESpec | WanVAESpec | CogVideoXVAESpec


@dataclass(frozen=True, slots=True)
class Specs:
    """The shapes of a model's networks; `image` is that of the picture's encoder and `retouch` that of what draws
    figures sharp in decoded frames, where there is one.
    """

    dit: DenoiserSpec
    vae: AutoencoderSpec
    text: TextSpec | T5Spec
    image: ClipVisionSpec | None = None
    retouch: RetouchSpec | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a model draws when nothing else is asked; sides in pixels, frames per second, seconds."""

    width: int
    height: int
    fps: Fraction
    seconds: float
    steps: int
    guidance: float
    min_side: int


Knowing = Literal["native", "channels", "pin"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model on this machine.

    `parts` are the weights of its networks: a file or folder for "dit", "vae" and "text", "tokenizer" beside them, and
    "image" and "image_settings" where it reads pictures. `checksums` are the SHA-256 of `files` by name, as recorded
    when the model was made or downloaded, none for another folder that someone else published; names are paths in its
    folder. `hub` is the id that it was downloaded by. `scheduler` is its scheduler_config.json.
    `knows` says how it is told of known frames: as frames at timestep 0, by condition channels, or not at all, so that
    they are pinned. `vocabulary` holds the words that it was trained on, or is None where the model reads any text.
    `figures` are the names of what its network has pictures of, in their order; `scenes` are the places that it knows,
    each by the phrases that say it.
    """

    name: str
    family: str
    folder: Path
    files: tuple[Path, ...]
    checksums: Mapping[str, str]
    specs: Specs
    defaults: Defaults
    licence: str
    about: str
    parts: Mapping[str, Path]
    grid: Grid
    knows: Knowing = "native"
    scheduler: Mapping[str, Any] | None = None
    vocabulary: frozenset[str] | None = None
    figures: tuple[str, ...] = ()
    scenes: tuple[tuple[str, ...], ...] = ()
    hub: str | None = None

    def recorded(self, file: Path) -> str | None:
        """The checksum that was recorded of one of its files."""
        return self.checksums.get(file.relative_to(self.folder).as_posix())

    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file as it is now, in sorted order; hexadecimal."""
        return sha256_of_sums(sha256_of(file) for file in self.files)


@dataclass(frozen=True, slots=True)
class Family:
    """Models that one engine setting fits.

    `identify` says whether a folder holds one, `describe` reads what it is (WeightsError for a broken one),
    and `key_rules` lead from the keys of each network's files to our names.
    """

    name: str
    identify: Callable[[Path], bool]
    describe: Callable[[Path], Model]
    key_rules: Mapping[str, KeyMap]
    flow: FlowSpec
