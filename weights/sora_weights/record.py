"""What was recorded of a model when it was downloaded: its id and commit on the hub, and the checksums of its files."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from sora_weights import manifest
from sora_weights.manifest import Manifest, read_manifest
from sora_weights.store import fresh_sha256_of

RECORD = "sora.json"


@dataclass(frozen=True, slots=True)
class Record:
    """Where a model came from, and the SHA-256 of its files by their path in its folder."""

    hub: str
    commit: str
    checksums: Mapping[str, str]


def read_record(folder: Path) -> Record | None:
    """The record of a folder, None where there is none. Raises WeightsError("bad_weights") for a damaged one."""
    if not os.path.isfile(folder / RECORD):
        return None
    found = read_manifest(folder / RECORD)
    listed = Manifest(found.path, found.take("files", _files), "files.")
    return Record(
        hub=found.take("hub", manifest.text),
        commit=found.take("commit", manifest.text),
        checksums=MappingProxyType({name: listed.take(name, manifest.sha256) for name in listed.values}),
    )


def write_record(folder: Path, hub: str, commit: str, files: Iterable[Path]) -> None:
    """Compute the checksums of a model's files and put them down in its folder. Raises OSError."""
    sums = {file.relative_to(folder).as_posix(): fresh_sha256_of(file) for file in files}
    part = folder / f"{RECORD}.part"
    part.write_text(json.dumps({"hub": hub, "commit": commit, "files": sums}, indent=1), encoding="utf-8")
    os.replace(part, folder / RECORD)


def _files(value: Any) -> Mapping[str, Any]:
    """The keys of a JSON object that are paths below its own folder."""
    for name in manifest.mapping(value):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise ValueError("files below the folder are needed")
    return manifest.mapping(value)
