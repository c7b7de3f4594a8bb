"""Frozen facts about networks: what a model's files hold and how its parts are shaped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from sora_weights.keymap import KeyMap
from sora_weights.store import sha256_of, sha256_of_sums


@dataclass(frozen=True, slots=True)
class PatchVAESpec:
    """diorama's video autoencoder (`sora_cli.model.vae.patch`): its channels, widths and depths."""

    channels: int = 32
    width: int = 256
    depth: int = 2
    tail_width: int = 64
    tail_depth: int = 1


@dataclass(frozen=True, slots=True)
class DiTSpec:
    """diorama's diffusion transformer (`sora_cli.model.dit`).

    Tokens are `patch` x `patch` latents of one latent frame; prompts are padded to `text_tokens`.
    """

    channels: int = 32
    patch: int = 2
    width: int = 256
    depth: int = 6
    heads: int = 4
    conv_width: int = 96
    text_width: int = 384
    text_tokens: int = 24


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
class FlowSpec:
    """How a family is sampled.

    `native_area` in pixels is what the network composes best at; larger pictures are drafted there and refined in
    `refine_steps` from noise level `refine_from`. `window` and `context` count latent frames; `reach` and `overlap`
    count latents (rows, columns) of the windows in space. `shared_noise` is the share of the noise's variance that all
    frames have in common (Ge et al. 2023, Preserve Your Own Correlation, arXiv:2305.10474, mixed noise).
    """

    solver: str
    shift: float
    native_area: int
    window: int
    context: int
    reach: tuple[int, int]
    overlap: tuple[int, int]
    refine_from: float
    refine_steps: int
    shared_noise: float


@dataclass(frozen=True, slots=True)
class Specs:
    """The shapes of a model's three networks."""

    dit: DiTSpec
    vae: PatchVAESpec
    text: TextSpec


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


@dataclass(frozen=True, slots=True)
class Model:
    """A model on this machine.

    `checksums` are the SHA-256 of `files` by name, as recorded when the model was made. `vocabulary` holds
    the words that it was trained on, or is None where the model reads any text.
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
    vocabulary: frozenset[str] | None

    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file as it is now, in sorted order; hexadecimal."""
        return sha256_of_sums(sha256_of(file) for file in self.files)

    def part(self, name: str) -> Path:
        """The weights of one network: "dit", "vae" or "text"."""
        return self.folder / f"{name}.safetensors"


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
