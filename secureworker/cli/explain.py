"""`secureworker explain`: what a policy makes of a task, and why."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from secureworker.core.policy import Policy

_TASK_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_MAX_BYTES: Final = 10 * 1024 * 1024
REFUSED, UNUSABLE = 1, 2
"""Exit codes."""


@click.command("explain")
@click.argument("task")
@click.option("--policy", "path", required=True, envvar="SECUREWORKER_POLICY", metavar="FILE", help="The policy.")
@click.option("--no-host", is_flag=True, help="Do not look at this host's files: the policy is for another.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, *, task: str, path: str, no_host: bool, as_json: bool) -> None:
    r"""Decide about TASK without running anything: print the plan, or every reason to refuse it.

    TASK is a file with a task definition (`-`: standard input), of which what is left out is as the policy would have
    it, or the id of a task, which is then fetched from the policy's Taskcluster without credentials.

    \b
    Exit codes:
      0  the task is admitted
      1  it is refused
      2  the policy or the task cannot be used

    \b
    Examples:
      secureworker explain --policy release.yml task.json
      secureworker explain --policy release.yml fN1SbArXTPSVFNUvaOlinQ
      echo '{"scopes": ["project:x:action:sign"], "payload": {}}' | secureworker explain --policy release.yml -
    """
    # Here and not above: `--help` of the whole program must not load YAML and schemas.
    from secureworker.core.decide import Admitted
    from secureworker.core.errors import PolicyError
    from secureworker.policyfile import load
    from secureworker.policyfile.summary import of_plan
    from secureworker.policyfile.trial import ask

    try:
        policy = load(path, host=not no_host)
        definition = _fetch(task, policy) if _TASK_ID.fullmatch(task) and not Path(task).exists() else _read(task)
    except (PolicyError, ValueError) as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(UNUSABLE)
    decision = ask(definition, policy)
    if isinstance(decision, Admitted):
        rule = next(rule for rule in policy.scripts if rule.name == decision.plan.script)
        plan = of_plan(decision.plan, rule)
        if as_json:
            _print({"admitted": True, "policy": policy.sha256, "plan": plan, "reasons": []})
        else:
            click.echo(f"admitted by scripts.{rule.name}: {rule.description}\n")
            _show(plan)
        context.exit(0)
    if as_json:
        reasons = [{"rule": reason.rule, "message": reason.message} for reason in decision.reasons]
        _print({"admitted": False, "policy": policy.sha256, "plan": None, "reasons": reasons})
    else:
        click.echo("refused:")
        for reason in decision.reasons:
            click.echo(f"  - {reason}")
    context.exit(REFUSED)


def _read(name: str) -> dict[str, Any]:
    from secureworker.host.documents import parse_json

    try:
        with click.open_file(name, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(
            f"{name} cannot be read: {error.strerror}; a file with a task definition, `-`, or a task id is expected"
        ) from error
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{name} has more than {_MAX_BYTES} bytes, and so is no task")
    value = parse_json(content, name, most=_MAX_BYTES).value
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no task definition: an object is expected")
    return value


def _fetch(task_id: str, policy: "Policy") -> dict[str, Any]:
    import taskcluster
    from taskcluster.exceptions import TaskclusterFailure

    queue = taskcluster.Queue({"rootUrl": policy.root_url, "maxRetries": 2})
    try:
        definition: dict[str, Any] = queue.task(task_id)
    except TaskclusterFailure as error:
        raise ValueError(f"the task {task_id} cannot be read from {policy.root_url}: {_first_part(error)}") from error
    return definition


def _first_part(error: Exception) -> str:
    """Leave out the dump of the request that follows what a service says."""
    return " ".join(str(error).split("\n---", 1)[0].split())


def _show(plan: dict[str, Any]) -> None:
    for key, value in plan.items():
        if value not in ({}, [], None):
            text = value if isinstance(value, str) else json.dumps(value, indent=2)
            first, *rest = text.splitlines()
            click.echo(f"{key + ':':<12} {first}")
            for line in rest:
                click.echo(f"{'':<12} {line}")


def _print(answer: dict[str, Any]) -> None:
    click.echo(json.dumps(answer, indent=2))
