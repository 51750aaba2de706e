"""`secureworker check`: is this policy valid here, and what does it allow?"""

import json
from typing import Any

import click

UNWISE, INVALID = 1, 2
"""Exit codes."""


@click.command("check")
@click.option("--policy", "path", required=True, envvar="SECUREWORKER_POLICY", metavar="FILE", help="The policy.")
@click.option("--strict", is_flag=True, help="End with 1 where something is legal but unwise.")
@click.option("--no-host", is_flag=True, help="Do not look at this host's files: the policy is for another.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, *, path: str, strict: bool, no_host: bool, as_json: bool) -> None:
    r"""Validate a policy with its schemas, pins, mounts and owners, and say in plain words what it allows.

    \b
    Exit codes:
      0  valid
      1  valid, but a worker would not start with it, or, with --strict, something in it is unwise
      2  not valid: every problem is printed as file:line: key: what was found; what to do

    \b
    Examples:
      secureworker check --policy release.yml
      secureworker check --policy release.yml --no-host --strict   # in CI
    """
    # Here and not above: `--help` of the whole program must not load YAML and schemas.
    from datetime import UTC, datetime

    from secureworker.core.errors import PolicyError
    from secureworker.policyfile import load, unenforceable
    from secureworker.policyfile.advice import advise
    from secureworker.policyfile.summary import of_policy
    from secureworker.policyfile.words import describe

    try:
        policy = load(path, host=not no_host)
    except PolicyError as error:
        if as_json:
            _print({"valid": False, "problems": list(error.problems)})
        else:
            click.echo(f"{error}\n\n{path} is not valid: {_count(len(error.problems), 'problem')}.", err=True)
        context.exit(INVALID)
    warnings = advise(policy, datetime.now(UTC).date(), host=not no_host)
    missing = unenforceable(policy)
    if as_json:
        found = {"warnings": [str(warning) for warning in warnings], "unenforceable": list(missing)}
        _print({"valid": True, "problems": [], **found, "policy": of_policy(policy)})
    else:
        for line in describe(policy):
            click.echo(line)
        _list("Legal, but unwise:", [str(warning) for warning in warnings])
        _list("A worker does not start with this policy:", list(missing))
        click.echo(f"\n{path} is valid (sha256 {policy.sha256}).")
    context.exit(UNWISE if missing or (strict and warnings) else 0)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _list(title: str, lines: list[str]) -> None:
    if lines:
        click.echo(f"\n{title}")
    for line in lines:
        click.echo(f"  - {line}")


def _print(answer: dict[str, Any]) -> None:
    click.echo(json.dumps(answer, indent=2))
