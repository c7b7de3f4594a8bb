"""`sora batch`: many jobs from a file."""

from typing import Annotated

import typer

from sora_cli.options import (
    GOING_ON,
    DebugOpt,
    DryRunOpt,
    JsonOpt,
    JsonStreamOpt,
    QuietOpt,
    console_of,
)

JobsArg = Annotated[
    str, typer.Argument(metavar="JOBS.jsonl", help='A JSON object a line, {"command": ..., ...}; - for stdin.')
]
ResumeOpt = Annotated[bool, typer.Option("--resume", help="Leave what is there, go on with what was stopped.")]


def batch(
    context: typer.Context,
    jobs: JobsArg,
    resume: ResumeOpt = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Run many jobs from a file, once all of its lines are checked.

    A line holds a command, its arguments and its options by their names, as in
    {"command": "generate", "prompt": "a cat", "seconds": 2, "output": "cat.mp4"}. A job may read what an earlier
    one makes.
    """
    from sora_cli.batch import Batch, load, run

    context.meta[GOING_ON] = resume
    console, asked = console_of(context), Batch(jobs, context)
    run(asked, load(asked), console)
