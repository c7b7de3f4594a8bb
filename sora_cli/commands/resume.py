"""`sora resume`: a job that was stopped goes on."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sora_cli.errors import SoraError
from sora_cli.options import DebugOpt, ForceOpt, JsonOpt, JsonStreamOpt, QuietOpt, console_of

ListOpt = Annotated[bool, typer.Option("--list", help="List the jobs that were stopped.")]
ResultOpt = Annotated[
    str | None, typer.Option("--output", "-o", metavar="PATH", help="Where the result goes. [default: as asked before]")
]
JobArg = Annotated[str | None, typer.Argument(metavar="JOB", help="The job to finish. [default: the last one]")]


def resume(
    context: typer.Context,
    job: JobArg = None,
    listed: ListOpt = False,
    output: ResultOpt = None,
    force: ForceOpt = False,
    json: JsonOpt = False,
    json_stream: JsonStreamOpt = False,
    quiet: QuietOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Finish a job that was stopped; the frames are those that it would have made."""
    from sora_cli.engine.job import stopped_jobs
    from sora_cli.engine.render import go_on

    console, jobs = console_of(context), stopped_jobs()
    if listed:
        facts = [_facts(each) for each in jobs]
        lines = [f"{each['job']}  {each['command']}  {each['output']}  {each['prompt']}" for each in facts]
        console.answer("resume", facts, lines)
        return
    chosen = [each for each in jobs if job in (None, each.name)]
    if not chosen:
        told = "no job was stopped" if job is None else f"job {job[:80]}"
        raise SoraError("bad_usage", told, "see sora resume --list")
    request = chosen[-1].request
    console.again = ["sora", "resume", chosen[-1].name]
    made = go_on(chosen[-1], console, None if output is None else Path(output).absolute(), force=force)
    console.result(made, command=request.command, seed=request.seed, request=request.to_json())


def _facts(job: Any) -> dict[str, Any]:
    try:
        request = job.request
        return {
            "job": job.name,
            "command": request.command,
            "prompt": request.prompt,
            "output": job.delivery.output,
            "request": request.to_json(),
        }
    except SoraError as error:
        return {"job": job.name, "command": None, "prompt": str(error), "output": None, "request": None}
