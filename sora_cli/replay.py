"""The request that a result carries in its metadata, read back for `--from`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sora_cli.errors import SoraError
from sora_cli.request import Request
from sora_cli.result import SCHEMA


def read_record(source: Path, command: str) -> tuple[Request, str]:
    """The request in `source` and the digest of the model that made it.

    Raises `missing_input` or `bad_input`, naming the file: it may come from anywhere.
    """
    from sora_cli.media.metadata import read_metadata

    found = read_metadata(source)
    if found is None:
        raise SoraError("bad_input", f"--from {source}", "it has no sora metadata; name a file that sora made")
    try:
        return _request(found, command), _digest(found)
    except SoraError as error:
        raise SoraError(error.code, f"--from {source}: {error.message}", error.hint) from error


def _request(found: Mapping[str, Any], command: str) -> Request:
    if found.get("schema") != SCHEMA:
        raise SoraError("bad_input", "schema", f"it is not {SCHEMA}; it takes another version of sora to replay it")
    if found.get("command") != command:
        raise SoraError("bad_input", "command", f"the file was not made by sora {command}; name one that was")
    if not isinstance(found.get("request"), dict):
        raise SoraError("bad_input", "request", "it is missing; name a file that sora made")
    request = Request.from_json(found["request"])
    if request.command != command:
        raise SoraError("bad_input", "request.command", f"it is not {command}; name a file that sora made")
    if request.files or request.mode is not None or request.prompt_b is not None:
        raise SoraError("bad_input", "request", f"sora {command} takes no clips; name a file that sora made")
    return request


def _digest(found: Mapping[str, Any]) -> str:
    model = found.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("digest"), str):
        raise SoraError("bad_input", "model", "its digest is missing; name a file that sora made")
    return str(model["digest"])
