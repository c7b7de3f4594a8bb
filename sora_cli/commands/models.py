"""`sora models`: which weights there are, and which are used."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sora_cli import settings
from sora_cli.errors import SoraError
from sora_cli.options import DebugOpt, JsonOpt, JsonStreamOpt, QuietOpt, console_of
from sora_cli.request import DEFAULT_MODEL, words

if TYPE_CHECKING:
    from sora_weights.registry import FileCheck, Model

app = typer.Typer(help="List, get, check and choose the weights that there are.", no_args_is_help=False)

NameArg = Annotated[str, typer.Argument(metavar="NAME", parser=words("NAME"), help="The model.")]
RevisionOpt = Annotated[
    str | None,
    typer.Option(
        "--revision",
        metavar="R",
        parser=words("--revision"),
        help="A branch, a tag or a commit. [default: the main branch]",
    ),
]


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List, get, check and choose the weights that there are."""
    if context.invoked_subcommand is None:
        raise SoraError("bad_usage", "no command after models", "try sora models list, or see sora models --help")


@app.command("list")
def list_(
    context: typer.Context,
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """List the models that can be used."""
    from sora_weights.registry import list_models

    found = [_facts(model) for model in list_models()]
    console_of(context).answer("models", found, [_line(facts) for facts in found])


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model to show.")],
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Show one model: its files, digest, licence and defaults."""
    from sora_weights.registry import find_model

    model = find_model(name)
    facts = {**_facts(model), "digest": model.digest(), "defaults": _defaults(model)}
    lines = [f"{key}: {_plain(value)}" for key, value in facts.items()]
    console_of(context).answer("models", facts, lines)


@app.command()
def pull(
    context: typer.Context,
    hub_id: Annotated[
        str, typer.Argument(metavar="HUB-ID", parser=words("HUB-ID"), help="Such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers.")
    ],
    revision: RevisionOpt = None,
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Download a model, if sora can run it."""
    from sora_weights.hub import pull as download

    console = console_of(context)
    model, new = download(hub_id, revision, quiet=console.quiet or not sys.stderr.isatty())
    if not new:
        console.note(f"{model.name} is here already")
    facts = _facts(model)
    console.answer("models", facts, [_line(facts)])


@app.command()
def verify(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", parser=words("NAME"), help="The model. [default: all]")
    ] = None,
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Compare files with their recorded checksums."""
    from sora_weights.registry import find_model, list_models
    from sora_weights.registry import verify as check

    console = console_of(context)
    found = list_models() if name is None else [find_model(name)]
    if name is not None and not found[0].checksums:
        told = f"model {name}: no checksums were recorded of it"
        raise SoraError("not_available", told, "sora models pull records those of what it downloads")
    checked = [(model, check(model) if model.checksums else ()) for model in found]
    data = [_verified(*each) for each in checked]
    wrong = [each for _, checks in checked for each in checks if not each.ok]
    if not wrong:
        console.answer("models", data, [_verdict(*each) for each in checked])
        return
    console.lines([f"{each.file}: {_difference(each)}" for each in wrong])
    console.more = {"data": data}
    told = f"{len(wrong)} of {sum(len(checks) for _, checks in checked)} files are not what was recorded"
    raise SoraError("weights_changed", told, "get the model again")


@app.command()
def rm(
    context: typer.Context,
    name: NameArg,
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Remove a model that was downloaded."""
    from sora_weights.hub import unfinished
    from sora_weights.registry import find_model, installed_folder
    from sora_weights.store import BUILTIN, remove, weights_folder

    folder = installed_folder(name) or unfinished(name)
    if folder is None:
        if find_model(name).folder == BUILTIN:
            raise SoraError("bad_usage", f"model {name}", "it comes with sora; only downloaded models can be removed")
        raise SoraError("bad_usage", name, f"it is not in {weights_folder()}; remove the folder yourself")
    console, (chosen, where) = console_of(context), _chosen()
    remove(folder)
    if chosen in (name, folder.name):
        console.note(f"{where} still names it; sora models default {DEFAULT_MODEL} changes that")
    console.answer("models", {"name": name, "folder": str(folder)}, [str(folder)])


@app.command()
def default(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", parser=words("NAME"), help="The model to use from now on.")
    ] = None,
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Tell the model that commands use, or choose it."""
    console = console_of(context)
    if name is None:
        used, where = _chosen()
        console.answer("models", {"name": used, "from": where}, [used])
        return
    chosen = _lasting(name)
    path = settings.keep("model", chosen)
    used, where = _chosen()
    if used != chosen:
        console.note(f"{where} says {used}, which counts here")
    console.answer("models", {"name": chosen, "from": str(path)}, [chosen])


def _chosen() -> tuple[str, str | None]:
    """The model that is used where none is named, and what says so; None is sora itself."""
    return settings.source_of("model") or (DEFAULT_MODEL, None)


def _lasting(name: str) -> str:
    """What calls a model from any folder: its name, else its folder's whole path. Raises what `find_model` raises."""
    from sora_weights.registry import find_model, list_models

    model = find_model(name)
    if model.name in {each.name for each in list_models() if each.folder == model.folder}:
        return model.name
    return str(model.folder.resolve())


def _verified(model: "Model", checks: Sequence["FileCheck"]) -> dict[str, Any]:
    files = [{"file": str(each.file), "ok": each.ok, "recorded": each.recorded, "found": each.found} for each in checks]
    return {"name": model.name, "recorded": bool(model.checksums), "files": files}


def _verdict(model: "Model", checks: Sequence["FileCheck"]) -> str:
    if not model.checksums:
        return f"{model.name}: no checksums were recorded of it, nothing is compared"
    return f"{model.name}: {len(checks)} files are what was recorded"


def _difference(check: "FileCheck") -> str:
    if check.found is None:
        return "it is missing"
    return "its checksum was never recorded" if check.recorded is None else "its checksum is not the recorded one"


def _line(facts: dict[str, Any]) -> str:
    return f"{facts['name']}  {facts['family']}  {facts['bytes'] / 2**20:.1f} MiB  {facts['about']}"


def _facts(model: "Model") -> dict[str, Any]:
    return {
        "name": model.name,
        "family": model.family,
        "about": model.about,
        "licence": model.licence,
        "files": [str(path) for path in model.files],
        "bytes": sum(path.stat().st_size for path in model.files),
    }


def _defaults(model: "Model") -> dict[str, Any]:
    defaults = model.defaults
    return {
        "size": f"{defaults.width}x{defaults.height}",
        "fps": str(defaults.fps),
        "seconds": defaults.seconds,
        "steps": defaults.steps,
        "guidance": defaults.guidance,
    }


def _plain(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{key} {item}" for key, item in value.items())
        case list():
            return ", ".join(map(str, value))
    return str(value)
