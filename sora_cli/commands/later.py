"""Commands that are named but not made yet: each shows its help and says plainly that it is not there."""

from dataclasses import dataclass

import typer

from sora_cli.errors import SoraError


@dataclass(frozen=True, slots=True)
class Later:
    """A command to come: its name, its arguments as the help shows them, what it will do."""

    name: str
    usage: str
    about: str


COMMANDS = (Later("batch", "JOBS.jsonl", "Run many jobs from a file"),)

MODEL_COMMANDS = (
    Later("pull", "HUB-ID", "Download a model"),
    Later("verify", "NAME", "Compare a model's files with their digests"),
    Later("rm", "NAME", "Remove a model"),
    Later("default", "NAME", "Choose the model that commands use"),
)

ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}


def register(app: typer.Typer, commands: tuple[Later, ...]) -> None:
    """Adds `commands` to `app`."""
    for command in commands:
        app.command(
            command.name,
            help=f"{command.about} (not in this version yet)",
            short_help=f"{command.about} (to come)",
            options_metavar=command.usage,
            context_settings=ANYTHING,
        )(_refuse)


def _refuse(context: typer.Context) -> None:
    raise SoraError(
        "not_available",
        context.command_path,
        "it is not in this version; sora --help marks the commands that are to come",
    )
