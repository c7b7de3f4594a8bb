"""Models from the hub: only files that sora reads, never pickles, and only of models that it can run."""

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sora_weights.errors import MissingFileError, WeightsError
from sora_weights.families.published import FOLDERS, INDEX
from sora_weights.record import read_record, write_record
from sora_weights.registry import describe, list_models
from sora_weights.spec import Model
from sora_weights.store import weights_folder

SETTINGS = ("*.json", "*.model", "*.txt", "README.md", "LICENSE*")
PUBLISHED_WEIGHTS = tuple(f"{folder}/*.safetensors" for folder in FOLDERS.values())
DIORAMA_WEIGHTS = ("*.safetensors", "figures.zip")
VARIANTS = ("*.fp16.*", "*.bf16.*", "*.fp16-*", "*.bf16-*", "*.non_ema.*")
"""Files that a folder may hold beside those of the same name without it, and that are not read."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}


def pull(hub_id: str, revision: str | None = None, *, quiet: bool = False) -> tuple[Model, bool]:
    """The model that the hub has under `hub_id`, and whether it had to be downloaded; checksums are recorded with it.

    What is small comes first, so that a model that sora can't run costs little. A download that was stopped goes on
    where it was; one that sora can't use is removed.
    Raises WeightsError: bad_usage, download_failed, unknown_model, bad_weights; OSError from the disk.
    """
    _check_id(hub_id)
    target = weights_folder() / hub_id.partition("/")[2]
    if (here := _installed(hub_id, revision, target)) is not None:
        return here, False
    commit = _commit_of(hub_id, revision)
    part = part_of(hub_id)
    part.mkdir(parents=True, exist_ok=True)
    _download(hub_id, commit, part, SETTINGS, quiet=quiet)
    with _removed_if_useless(hub_id, part), suppress(MissingFileError):
        describe(part)
    published = os.path.isfile(part / INDEX)
    _download(hub_id, commit, part, PUBLISHED_WEIGHTS if published else DIORAMA_WEIGHTS, quiet=quiet)
    with _removed_if_useless(hub_id, part):
        files = _usable(part, target).files
    shutil.rmtree(part / ".cache", ignore_errors=True)  # where the hub's library keeps what it needs to go on
    write_record(part, hub_id, commit, files)
    os.rename(part, target)
    return describe(target), True


def part_of(hub_id: str) -> Path:
    """The folder of a download that is not whole."""
    return weights_folder() / f".{hub_id.replace('/', '--')}.part"


def unfinished(hub_id: str) -> Path | None:
    """The folder of a download that was stopped, if there is one."""
    return part if _HUB_ID.fullmatch(hub_id) and (part := part_of(hub_id)).is_dir() else None


def _check_id(hub_id: str) -> None:
    if not _HUB_ID.fullmatch(hub_id) or ".." in hub_id or "--" in hub_id:
        raise WeightsError("bad_usage", hub_id[:200], "it is no HUB-ID; try Wan-AI/Wan2.1-T2V-1.3B-Diffusers")


def _installed(hub_id: str, revision: str | None, target: Path) -> Model | None:
    """The model if it is here already, in whichever revision where none is named.

    Raises WeightsError("bad_usage") where another model or revision has its place.
    """
    remedy = f"sora models rm {target.name} removes it"
    if os.path.lexists(target):
        record = read_record(target)
        if record is None or record.hub != hub_id:
            raise WeightsError("bad_usage", f"{target}: another model is there", remedy)
        if revision is not None and record.commit != _commit_of(hub_id, revision):
            raise WeightsError("bad_usage", f"{target}: it is here as of commit {record.commit[:12]}", remedy)
        return describe(target)
    _check_name(target.name)
    return None


def _check_name(name: str) -> None:
    if name in {model.name for model in list_models()}:
        raise WeightsError("bad_usage", f"model {name}: another one of that name is here", "see sora models list")


def _usable(part: Path, target: Path) -> Model:
    """The downloaded model. Raises WeightsError for one that can't be used."""
    model = describe(part)
    if model.name != part.name:  # its own description names it, not its folder
        _check_name(model.name)
    return model


@contextmanager
def _removed_if_useless(hub_id: str, part: Path) -> Iterator[None]:
    """Removes what was downloaded when it is no model that sora can use, and says so."""
    try:
        yield
    except WeightsError as error:
        shutil.rmtree(part, ignore_errors=True)
        why = error.message.replace(f"{part}{os.sep}", "").replace(str(part), "its folder")
        hint = f"{error.hint}; what was downloaded is removed"
        raise WeightsError(error.code, f"model {hub_id}: {why}", hint) from error


def _commit_of(hub_id: str, revision: str | None) -> str:
    """The commit that a branch, tag or commit stands for now, so that all files are of one."""
    import huggingface_hub

    with _explained(hub_id, revision):
        return str(huggingface_hub.model_info(hub_id, revision=revision).sha)


def _download(hub_id: str, commit: str, folder: Path, patterns: Sequence[str], *, quiet: bool) -> None:
    """Get the files of these patterns that are not here yet."""
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what goes wrong is told in one line
    if quiet:
        disable_progress_bars()
    with _explained(hub_id, commit):
        huggingface_hub.snapshot_download(
            hub_id,
            revision=commit,
            local_dir=folder,
            allow_patterns=list(patterns),
            ignore_patterns=list(VARIANTS),
        )


@contextmanager
def _explained(hub_id: str, revision: str | None) -> Iterator[None]:
    """Turns the many exceptions of a download into WeightsError; those of the disk stay as they are."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        hint = "accept them on its page, then set HF_TOKEN to a token of yours"
        raise WeightsError("unknown_model", f"model {hub_id}: its authors have terms", hint) from error
    except errors.RevisionNotFoundError as error:
        told = f"model {hub_id}: it has no revision {str(revision)[:80]}"
        raise WeightsError("unknown_model", told, "name a branch, a tag or a commit") from error
    except errors.RepositoryNotFoundError as error:
        hint = "check its spelling; a private one needs HF_TOKEN"
        raise WeightsError("unknown_model", f"model {hub_id}: the hub has none of that id", hint) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        why = " ".join(str(error).split())[:200] or type(error).__name__
        hint = "check the network, then run it again: what is here already stays"
        raise WeightsError("download_failed", f"model {hub_id}: {why}", hint) from error
