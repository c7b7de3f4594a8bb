"""diorama, the model that comes with the tool, and whatever else its recipe trains."""

import os
from collections.abc import Container
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from sora_weights import manifest
from sora_weights.errors import MissingFileError, WeightsError
from sora_weights.keymap import SAME_KEYS
from sora_weights.manifest import Manifest, read_manifest
from sora_weights.reader import INDEX_ENDING
from sora_weights.spec import (
    Defaults,
    DiTSpec,
    Family,
    FlowSpec,
    Grid,
    Model,
    PatchVAESpec,
    RetouchSpec,
    Specs,
    TextSpec,
)

DESCRIPTION = "diorama.json"
NETWORKS = ("dit", "text", "vae")  # each in a file of its name, or in several and an index
RETOUCH = "retouch.safetensors"  # which a model may lack
OTHERS = {"figures": "figures.zip", "tokenizer": "tokenizer.json"}
LARGEST = {
    "width": 8192,
    "depth": 128,
    "heads": 128,
    "conv_width": 4096,
    "tail_width": 4096,
    "tail_depth": 64,
    "figures": 65536,
    "names": 64,
    "views": 64,
    "sheet": 256,
    "artwork": 512,
    "course_width": 4096,
    "course_depth": 64,
    "space": 64,
    "time": 64,
}
S = TypeVar("S", DiTSpec, PatchVAESpec, RetouchSpec, TextSpec)


def identify(folder: Path) -> bool:
    """Whether the folder holds a description of a diorama."""
    return os.path.isfile(folder / DESCRIPTION)


def describe(folder: Path) -> Model:
    """The model that `diorama.json` in `folder` describes.

    Raises WeightsError("bad_weights") naming the field, or the file that it lists and the folder lacks.
    """
    described = read_manifest(folder / DESCRIPTION)
    checksums = _checksums(described)
    parts = {name: _weights_of(name, checksums) for name in NETWORKS} | OTHERS
    retouches = RETOUCH in checksums
    if retouches:
        parts["retouch"] = RETOUCH
    if missing := [file for file in parts.values() if file not in checksums]:
        raise WeightsError("bad_weights", f"{described.path}: files lacks {missing[0]}", "get the model again")
    return Model(
        name=described.take("name", manifest.name),
        family=FAMILY.name,
        folder=folder,
        files=tuple(folder / file for file in checksums),
        checksums=MappingProxyType(checksums),
        specs=Specs(
            dit=_fitting(described, "dit", described.take_spec("dit", DiTSpec)),
            vae=_fitting(described, "vae", described.take_spec("vae", PatchVAESpec)),
            text=_fitting(described, "text", described.take_spec("text", TextSpec)),
            retouch=_fitting(described, "retouch", described.take_spec("retouch", RetouchSpec)) if retouches else None,
        ),
        defaults=_defaults(described.inner("defaults")),
        licence=described.take("licence", manifest.text),
        about=described.take("about", manifest.text),
        parts=MappingProxyType({name: folder / file for name, file in parts.items()}),
        grid=Grid(space=8, patch=16, time=4),
        vocabulary=described.take("vocabulary", manifest.words),
        figures=_figures(described),
        scenes=described.take("scenes", manifest.phrases) if described.has("scenes") else (),
    )


def _weights_of(network: str, listed: Container[str]) -> str:
    """The file that a network's weights begin with: an index, if there is one."""
    plain = f"{network}.safetensors"
    return index if (index := f"{network}{INDEX_ENDING}") in listed else plain


def _figures(described: Manifest) -> tuple[str, ...]:
    """What the figures of the network's memory are called; nothing where the file doesn't say.

    Raises WeightsError("bad_weights") for more names or fewer.
    """
    if not described.has("figures"):
        return ()
    figures, held = described.take("figures", manifest.names), described.take_spec("dit", DiTSpec).figures
    if len(figures) != held:
        wrong = f"{described.path}: figures names {len(figures)}; the network's memory holds {held}"
        raise WeightsError("bad_weights", wrong, "get the model again")
    return figures


def _fitting(described: Manifest, field: str, spec: S) -> S:
    """The spec, if a network can be built of it. Raises WeightsError("bad_weights") naming the value."""
    for name, most in LARGEST.items():
        if getattr(spec, name, 0) > most:
            wrong = f"{described.path}: {field}.{name} is {getattr(spec, name)}; {most} or less works"
            raise WeightsError("bad_weights", wrong, "get the model again")
    if isinstance(spec, DiTSpec) and (spec.patch != 2 or spec.width % (2 * spec.heads)):
        wrong = f"{described.path}: dit has patch {spec.patch}, width {spec.width}, heads {spec.heads}"
        raise WeightsError("bad_weights", wrong, "patches are 2 latents, and heads share the width evenly")
    return spec


def _checksums(described: Manifest) -> dict[str, str]:
    """The SHA-256 of every file by name; each is there."""
    listed = described.inner("files")
    checksums = {}
    for name in sorted(described.take("files", manifest.file_names)):
        if not (described.path.parent / name).is_file():
            missing = described.path.parent / name
            raise MissingFileError("bad_weights", f"{missing}: it is missing", "get the model again")
        checksums[name] = listed.take(name, manifest.sha256)
    return checksums


def _defaults(described: Manifest) -> Defaults:
    return Defaults(
        width=described.take("width", manifest.positive),
        height=described.take("height", manifest.positive),
        fps=described.take("fps", manifest.rate),
        seconds=described.take("seconds", manifest.amount),
        steps=described.take("steps", manifest.positive),
        guidance=described.take("guidance", manifest.amount),
        min_side=described.take("min_side", manifest.positive),
    )


FAMILY = Family(
    name="diorama",
    identify=identify,
    describe=describe,
    key_rules=MappingProxyType(dict.fromkeys((*NETWORKS, "retouch"), SAME_KEYS)),
    flow=FlowSpec(
        solver="dpmpp_2m",
        shift=2.0,
        native_area=160 * 96,
        window=13,
        context=4,
        refine_context=2,
        reach=(16, 24),
        overlap=(2, 2),
        refine_from=0.7,
        refine_steps=3,
        finish_from=0.35,
        finish_steps=1,
        smooth=0.035,
        shared_noise=0.5,
        known_guidance=1.5,
        given_start=0.2,
        handed_start=0.85,
        cleared_start=0.5,
        steady=True,
        reliance=4.0,
        persistence=4.0,
        paints=True,
    ),
)
