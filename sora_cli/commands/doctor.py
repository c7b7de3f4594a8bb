"""`sora doctor`: what this machine can run."""

from collections.abc import Iterator
from typing import Any

import typer

from sora_cli.options import DebugOpt, JsonOpt, JsonStreamOpt, QuietOpt, console_of


def doctor(
    context: typer.Context,
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Tell what this machine can run."""
    from sora_cli.machine import facts

    found = facts()
    console_of(context).answer("doctor", found, list(_lines(found)))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    from sora_cli.machine import size_text

    yield f"sora {found['sora']}, Python {found['python']}, torch {found['torch']}, {found['system']}"
    yield f"processors: {found['cpu_count']}"
    yield f"free: memory {size_text(found['memory_free_bytes'])}, disk {size_text(found['disk_free_bytes'])}"
    for device in found["devices"]:
        dtypes = ", ".join(f"{name} {_verdict(support)}" for name, support in device["dtypes"].items())
        free = size_text(device["memory_free_bytes"])
        yield f"device {device['name']} ({device['model']}, {free} free): {dtypes}"
    yield "writes: " + ", ".join(endings for endings, there in found["encoders"].items() if there)
    missing = [endings for endings, there in found["encoders"].items() if not there]
    if missing:
        yield f"can't write: {', '.join(missing)}"
    yield f"models: {', '.join(found['models'])}"
    for error in found["broken_models"]:
        yield f"can't use {error}"
    for name, folder in found["folders"].items():
        yield f"{name}: {folder}"
    for path in found["settings"]:
        yield f"settings: {path}"


def _verdict(support: dict[str, bool]) -> str:
    if not support["works"]:
        return "no"
    return "yes" if support["fast"] else "slow"
