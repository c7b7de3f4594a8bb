"""From what a user calls a model to its files."""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sora_weights.errors import WeightsError
from sora_weights.families import FAMILIES
from sora_weights.families.published import INDEX, pipeline_of
from sora_weights.record import read_record
from sora_weights.spec import Defaults, Family, Model
from sora_weights.store import fresh_sha256_of, installed_folders, model_folders, sha256_of, weights_folder

__all__ = [
    "DEFAULT",
    "Defaults",
    "FileCheck",
    "Model",
    "broken_models",
    "check_sums",
    "describe",
    "find_model",
    "installed_folder",
    "list_models",
    "verify",
]

DEFAULT = "diorama"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class FileCheck:
    """A file's recorded SHA-256 and the one that it has now; None where not recorded or not there."""

    file: Path
    recorded: str | None
    found: str | None

    @property
    def ok(self) -> bool:
        """Whether the file is what was recorded."""
        return self.recorded is not None and self.recorded == self.found


def find_model(name: str) -> Model:
    """The model of that name, downloaded by that id, or in that folder; "default" is diorama.

    An installed model's name wins over a folder here; write ./NAME for the folder.
    Raises WeightsError: unknown_model for what is not here, naming what is; bad_weights for a broken model.
    """
    wanted = DEFAULT if name == "default" else name
    for model in list_models():
        if wanted in (model.name, model.hub):
            return model
    if wanted in {folder.name for folder in installed_folders()}:
        return describe(weights_folder() / wanted)  # which says why it is not in the list
    if _is_folder(wanted):
        return describe(Path(wanted).expanduser())
    raise WeightsError("unknown_model", f"model {name[:200]}: {_why_unknown(name)}", _remedy(name))


def list_models() -> list[Model]:
    """The models on this machine, the built-in one first. Those that can't be read are in `broken_models`."""
    return [found for found in _scan() if isinstance(found, Model)]


def broken_models() -> list[WeightsError]:
    """Why installed models can't be used, one error for each."""
    return [found for found in _scan() if isinstance(found, WeightsError)]


def verify(model: Model) -> tuple[FileCheck, ...]:
    """Every file of the model with its checksum computed again from its bytes."""
    return tuple(
        FileCheck(file, model.recorded(file), fresh_sha256_of(file) if file.is_file() else None) for file in model.files
    )


def check_sums(model: Model) -> None:
    """Raises WeightsError("bad_weights") naming the first file that is not what was recorded when it was made.

    Of a folder that someone else published nothing is recorded, and nothing is compared.
    """
    for file in model.files if model.checksums else ():
        if sha256_of(file) != model.recorded(file):
            raise WeightsError("bad_weights", f"{file}: its checksum is not the recorded one", "get the model again")


def _scan() -> list[Model | WeightsError]:
    found: list[Model | WeightsError] = []
    for folder in model_folders():
        try:
            found.append(describe(folder))
        except WeightsError as error:
            found.append(error)
    return found


def installed_folder(name: str) -> Path | None:
    """The folder of an installed model by its name, its folder's name or the id that it was downloaded by."""
    for folder in installed_folders():
        names = [folder.name]
        with suppress(WeightsError):
            model = describe(folder)
            names += [model.name, model.hub or ""]
        if name in names:
            return folder
    return None


def describe(folder: Path) -> Model:
    """The model in a folder, with what was recorded when it was downloaded.

    Raises WeightsError: unknown_model for none of a known family, bad_weights for a broken one.
    """
    model = _family_of(folder).describe(folder)
    record = read_record(folder)
    if record is None:
        return model
    return replace(model, checksums=model.checksums or record.checksums, hub=record.hub)


def _family_of(folder: Path) -> Family:
    for family in FAMILIES.values():
        if family.identify(folder):
            return family
    known = ", ".join(FAMILIES)
    if pipeline := pipeline_of(folder):
        unknown = f"{folder / INDEX}: {pipeline[:60]} is of no known family"
        raise WeightsError("unknown_model", unknown, f"known: {known}")
    raise WeightsError("unknown_model", f"{folder}: it holds no model of a known family", f"known: {known}")


def _is_folder(name: str) -> bool:
    try:
        return name != "" and Path(name).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):
        return False


def _why_unknown(name: str) -> str:
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        return "it is not on this machine"
    if "/" in name or "\\" in name:
        return "there is no such folder"
    return "it is not known"


def _remedy(name: str) -> str:
    known = ", ".join(model.name for model in list_models()) or "none"
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        return f"sora models pull {name} downloads it; on this machine are: {known}"
    return f"use one of these, or a folder that holds a model: {known}"
