"""The table of contents of the command line."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sora_cli import __version__, guard
from sora_cli.commands import (
    batch,
    doctor,
    edit,
    extend,
    fill,
    generate,
    img2vid,
    info,
    interpolate,
    loop,
    models,
    reconstruct,
    resume,
    upscale,
)
from sora_cli.console import print_line
from sora_cli.options import HELP_FLAGS, ConfiguredCommand

app = typer.Typer(
    name="sora",
    help="Videos and images from words, on your own machine.",
    epilog='Try: sora generate "a cat at sunset"',
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": list(HELP_FLAGS)},
)

app.command("generate", cls=ConfiguredCommand)(generate.generate)
app.command("img2vid", cls=ConfiguredCommand)(img2vid.img2vid)
app.command("extend", cls=ConfiguredCommand)(extend.extend)
app.command("loop", cls=ConfiguredCommand)(loop.loop)
app.command("interpolate", cls=ConfiguredCommand)(interpolate.interpolate)
app.command("fill", cls=ConfiguredCommand)(fill.fill)
app.command("edit", cls=ConfiguredCommand)(edit.edit)
app.command("upscale", cls=ConfiguredCommand)(upscale.upscale)
app.command("reconstruct", cls=ConfiguredCommand)(reconstruct.reconstruct)
app.command("batch", cls=ConfiguredCommand)(batch.batch)
app.command("resume")(resume.resume)
app.command("info")(info.info)
app.add_typer(models.app, name="models")
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"sora {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Tell the version and stop."),
    ] = False,
) -> None:
    """Videos and images from words, on your own machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit status."""
    return guard.run(app, sys.argv[1:] if arguments is None else list(arguments))
