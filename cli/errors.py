"""From an exception to words and an exit status.

Why: an error is the part of the product that an admin reads most carefully.  It says the code, what happened,
where, why, and what to do; ``-o json`` gets the same as JSON.  Errors go to stderr, always.  This module must
never hide one: what nobody foresaw is said to be unforeseen, with the way to report it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any, Final

import click

from cli.options import Invocation, Settings
from cli.output import Output, versioned
from controlplane.domain.errors import ExitCode, Place, SpecError, UsageError, Ws7000Error

REPORT: Final = "run it again with --debug and report what it shows, with the output of ws7000 version"


def failed(problem: BaseException, invocation: Invocation) -> int:
    """Say what happened; the exit status."""
    if invocation.debug and not isinstance(problem, click.exceptions.ClickException):
        sys.stderr.write("".join(traceback.format_exception(problem)))
    if isinstance(problem, click.exceptions.Abort | KeyboardInterrupt):
        _write(invocation, Ws7000Error("CLI-007", "interrupted", remedy="what was applied stays; apply again to go on"))
        return int(ExitCode.INTERRUPTED)
    if isinstance(problem, BrokenPipeError):
        # Whoever read the output has seen enough; a message would only tear through theirs.
        # The interpreter flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.FAILED)
    error = _coded(problem)
    _write(invocation, error)
    if isinstance(problem, click.exceptions.UsageError) and problem.ctx is not None and not invocation.json_errors:
        click.echo(problem.ctx.get_usage(), err=True)
    return int(error.exit_code)


def _coded(problem: BaseException) -> Ws7000Error:
    if isinstance(problem, Ws7000Error):
        return problem
    if isinstance(problem, click.exceptions.ClickException):
        where = problem.ctx.command_path if isinstance(problem, click.UsageError) and problem.ctx else "ws7000"
        return UsageError("CLI-001", problem.format_message().rstrip("."), remedy=f"see {where} --help")
    if isinstance(problem, OSError):
        name = f" {problem.filename}" if problem.filename else ""
        return Ws7000Error(
            "CLI-006",
            f"the system refused:{name}: {problem.strerror or problem}".replace(": :", ":"),
            remedy="look at the owner and the rights of the path, and at the room that is left",
        )
    return Ws7000Error("CLI-005", f"an unforeseen error: {type(problem).__name__}: {problem}", remedy=REPORT)


def _write(invocation: Invocation, error: Ws7000Error) -> None:
    if invocation.json_errors:
        sys.stderr.write(json.dumps(versioned("Error", as_json(error)), indent=2) + "\n")
        return
    talk = Output(Settings())
    for line in lines(error):
        talk.say(line)


def as_json(error: Ws7000Error) -> dict[str, Any]:
    """The error with all its problems and its exit status."""
    body = error.to_json()
    if isinstance(error, SpecError) and error.problems:
        body["problems"] = [problem.to_json() for problem in error.problems]
    return {**body, "exit_code": int(error.exit_code)}


def lines(error: Ws7000Error, *, label: str = "error") -> list[str]:
    """The error for people; of several problems every one."""
    found = list(error.problems) if isinstance(error, SpecError) else []
    if found:
        told = [line for problem in found for line in [*one(problem.to_json(), problem, label=label), ""]]
        return [*told, f"{error.code} {error.what}", f"  see: ws7000 explain {found[0].code}"]
    several = error.details.get("problems")
    if isinstance(several, list) and len(several) > 1:
        told = [line for body in several for line in one(body, None, label=label)]
        return [*told, f"  see: ws7000 explain {error.code}"]
    return [*one(error.to_json(), error, label=label), f"  see: ws7000 explain {error.code}"]


def one(body: dict[str, Any], error: Ws7000Error | None, *, label: str) -> list[str]:
    """One problem: the sentence, the quoted line of a file, where, why and the remedy."""
    told = [f"{label}: {body['code']} {body['what']}"]
    where = body.get("where")
    if where:
        told.append(f"  where: {where}")
    quoted = error.details.get("line_text") if error is not None else None
    if quoted and error is not None and isinstance(error.where, Place):
        number = f"{error.where.line:>5}"
        told += [f"{number} | {quoted}", f"{' ' * len(number)} | {' ' * (error.where.column - 1)}^"]
    if body.get("why"):
        told.append(f"  why: {body['why']}")
    if body.get("remedy"):
        told.append(f"  remedy: {body['remedy']}")
    return told
