"""`sora models`: which weights there are."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sora_cli.errors import SoraError
from sora_cli.options import DebugOpt, JsonOpt, JsonStreamOpt, QuietOpt, console_of

if TYPE_CHECKING:
    from sora_weights.registry import Model

app = typer.Typer(help="List and show the weights that there are.", no_args_is_help=False)


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List and show the weights that there are."""
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
    lines = [
        f"{facts['name']}  {facts['family']}  {facts['bytes'] / 2**20:.1f} MiB  {facts['about']}" for facts in found
    ]
    console_of(context).answer("models", found, lines)


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
