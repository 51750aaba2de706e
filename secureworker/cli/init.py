"""`secureworker init`: everything that a host begins with."""

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from secureworker.starter.plan import Planned
    from secureworker.starter.texts import Worker

NOT_READY, REFUSED = 1, 2
"""Exit codes."""
_UNSEEN = ("/home/", "/root/", "/run/user/")


@click.command(
    "init",
    epilog="""\b
What it finds out: the host's name and domain (worker id and group), whether it is root, whether systemd starts services
here (then the signer gets a unit and a user of its own), where this program lies, and what `doctor` says.

\b
Exit codes:
  0  written, the policy is valid, and scripts can be sandboxed here; or, with --dry-run, it could be written
  1  written, but the policy or the host needs work first: it says which
  2  nothing was written: a file is there already, or the command line is wrong

\b
Examples:
  secureworker init --root-url https://tc.example.com --worker-pool releng-hardened/release
  secureworker init --root-url https://tc.example.com --worker-pool releng-hardened/release \\
      --scheduler-id release-level-3 --project-id example --script /opt/releng/bin/sign --dry-run
""",
)
@click.option("--root-url", required=True, metavar="URL", help="The Taskcluster.")
@click.option("--worker-pool", required=True, metavar="POOL", help="What to claim from: provisioner/worker-type.")
@click.option("--worker-group", metavar="GROUP", help="Where this worker is; by default from the host's domain.")
@click.option("--worker-id", metavar="ID", help="Which one it is; by default the host's name.")
@click.option(
    "--script",
    "scripts",
    multiple=True,
    metavar="PATH",
    help="A script that the policy shall allow; may be repeated. By default an example is written.",
)
@click.option(
    "--scheduler-id",
    "scheduler_ids",
    multiple=True,
    default=["-"],
    show_default=True,
    metavar="ID",
    help="Whose tasks the policy admits; may be repeated.",
)
@click.option(
    "--project-id",
    "project_ids",
    multiple=True,
    default=["none"],
    show_default=True,
    metavar="ID",
    help="Of which project tasks may be; may be repeated.",
)
@click.option("--scope", "scopes", multiple=True, metavar="PATTERN", help="A scope that tasks may have; repeatable.")
@click.option(
    "--directory", default="/etc/secureworker", show_default=True, metavar="DIR", help="Of settings, policy and key."
)
@click.option(
    "--state-dir", default="/var/lib/secureworker", show_default=True, metavar="DIR", help="The worker's own directory."
)
@click.option(
    "--units", metavar="DIR", help="Write units, and write them here; by default where systemd looks for them."
)
@click.option(
    "--no-units", is_flag=True, help="Write none: the worker is started by something else, with a signer of its own."
)
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:
    """Write a first policy, settings, a signing key and units for this host, and see whether they can work.

    Nothing that is there is overwritten. What it writes is a beginning: the policy is yours to write, and to have
    reviewed. Credentials are not made here; it says which scopes they need, and where they go.
    """
    from secureworker.core.errors import SettingsError

    if options["units"] is not None and options["no_units"]:
        raise click.UsageError("--units and --no-units do not go together.")
    try:
        context.exit(_begin(options))
    except SettingsError as error:
        raise click.UsageError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it."""

    worker: "Worker"
    planned: "Planned"
    written: tuple[str, ...]
    problems: tuple[str, ...]
    """Of the policy."""
    unable: tuple[str, ...]
    """What the host lacks."""
    steps: tuple[tuple[str, str], ...]
    """What is to be done next, and the command for it where there is one."""

    @property
    def ready(self) -> bool:
        """Whether nothing stands in the way but what the next steps say."""
        return not self.problems and not self.unable


def _begin(options: dict[str, Any]) -> int:
    from secureworker.core.errors import SettingsError
    from secureworker.starter import plan

    worker = _worker(options)
    scripts = plan.find_scripts(options["scripts"])
    units = None if options["units"] is None else plan.plain(options["units"], "the directory of units")
    planned = plan.plan(worker, _admits(options), scripts, units)
    there = plan.existing(planned)
    if there:
        raise SettingsError(
            f"there already: {', '.join(there)}; nothing was written. Move them away, or give another --directory"
        )
    if options["dry_run"]:
        _show_plan(planned, as_json=options["as_json"])
        return 0
    written = plan.write(planned, () if worker.units else ((worker.state_dir, 0o711),))
    report = Report(worker, planned, written, _check(worker), _doctor(), _steps(worker, units))
    if options["as_json"]:
        click.echo(json.dumps(_as_json(report), indent=2))
    else:
        _show(report)
    return 0 if report.ready else NOT_READY


def _worker(options: dict[str, Any]) -> "Worker":
    from secureworker.core.errors import SettingsError
    from secureworker.core.ids import WorkerIdentity, WorkerPool
    from secureworker.starter import host, plan
    from secureworker.starter.texts import Worker

    here = host.look()
    try:
        identity = WorkerIdentity(
            WorkerPool.parse(options["worker_pool"]),
            options["worker_group"] or here.worker_group,
            options["worker_id"] or here.worker_id,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
    units = not options["no_units"] and (options["units"] is not None or (here.root and here.systemd))
    return Worker(
        identity,
        options["root_url"].rstrip("/"),
        plan.plain(options["directory"], "the directory"),
        plan.plain(options["state_dir"], "the state directory"),
        units,
    )


def _admits(options: dict[str, Any]) -> Any:
    from secureworker.starter.texts import Admits

    return Admits(tuple(options["scheduler_ids"]), tuple(options["project_ids"]), tuple(options["scopes"]))


def _check(worker: "Worker") -> tuple[str, ...]:
    """Ask what `secureworker check` asks."""
    from secureworker.core.errors import PolicyError
    from secureworker.policyfile import load, unenforceable

    try:
        return tuple(unenforceable(load(worker.path("policy.yml"))))
    except PolicyError as error:
        return error.problems


def _doctor() -> tuple[str, ...]:
    """Ask what `secureworker doctor` asks."""
    from secureworker.sandbox import checkup

    missing = [point for point in checkup.examine() if point.state is checkup.State.MISSING]
    return tuple(f"{point.name}: {point.found}; {point.advice}" for point in missing)


def _steps(worker: "Worker", units: str | None) -> tuple[tuple[str, str], ...]:
    from secureworker.core.privileges import needed

    scopes = " ".join(needed(worker.identity))
    credentials = worker.path("taskcluster.json")
    put = f"install -m 0600 /dev/stdin {credentials}"
    steps = [
        (f"Write the policy: {worker.path('policy.yml')} is a beginning.", _check_command(worker)),
        (f"Have a Taskcluster client made with exactly these scopes: {scopes}", ""),
        (
            f'Put {{"clientId": "…", "accessToken": "…"}} into {credentials}, by this command\'s input (end: Ctrl-D):',
            put,
        ),
        ("Give the public key to those who verify:", f"{_program()} keys show {worker.path('signing.key.pub')}"),
    ]
    if not worker.units:
        # In a subshell: typed as it is, it must not end the shell that it is typed in.
        run = f"(set -a; . {worker.path('worker.env')}; exec {_program()} run)"
        return (*steps, ("Start the worker, with the settings as its environment:", run))
    if _program().startswith(_UNSEEN):
        steps.append((f"Install the program elsewhere: units do not see {_program()} (ProtectHome=).", ""))
    if units is None:
        steps.append(("Make the signer's user, and the directories:", "systemd-sysusers && systemd-tmpfiles --create"))
    else:
        steps.append((f"Install what lies in {units}: units, sysusers.d and tmpfiles.d.", ""))
    start = "systemctl daemon-reload && systemctl enable --now secureworker-signer secureworker"
    return (*steps, ("Start signer and worker:", start), ("See it work:", "journalctl --follow --unit secureworker"))


def _check_command(worker: "Worker") -> str:
    return f"{_program()} check --strict --policy {worker.path('policy.yml')}"


def _program() -> str:
    from secureworker.starter.host import program

    return program()


def _show_plan(planned: "Planned", *, as_json: bool) -> None:
    entries = [
        {"path": file.path, "what": file.what, "mode": f"{file.mode:04o}", "content": _text(file.content)}
        for file in planned.files
    ]
    if as_json:
        click.echo(json.dumps({"written": [], "files": entries, "installed": list(planned.installed)}, indent=2))
        return
    for file in planned.files:
        click.echo(f"### {file.path} ({file.what}, mode {file.mode:04o})")
        click.echo(_text(file.content) or "A new Ed25519 key, and its public half beside it in .pub.\n", nl=False)
        click.echo()
    for path in planned.installed:
        click.echo(f"### {path} is as it should be")
    click.echo("Nothing was written.")


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode()


def _as_json(report: Report) -> dict[str, Any]:
    from secureworker.core.privileges import needed

    identity = report.worker.identity
    return {
        "ready": report.ready,
        "worker": {"pool": str(identity.pool), "group": identity.worker_group, "id": identity.worker_id},
        "written": list(report.written),
        "installed": list(report.planned.installed),
        "check": list(report.problems),
        "doctor": list(report.unable),
        "scopes": list(needed(identity)),
        "credentials": report.worker.path("taskcluster.json"),
        "next": [{"say": say, "command": do} for say, do in report.steps],
    }


def _show(report: Report) -> None:
    click.echo(f"Written, for the worker {report.worker.identity}:")
    for path in report.written:
        click.echo(f"  {path}")
    for path in report.planned.installed:
        click.echo(f"  {path} (there already, as it should be)")
    for title, lines in (("The policy is not valid", report.problems), ("This host is not ready", report.unable)):
        if lines:
            click.echo(f"\n{title}:", file=sys.stderr)
        for line in lines:
            click.echo(f"  {line}", file=sys.stderr)
    if report.ready:
        click.echo("\nThe policy is valid, and this host can sandbox scripts.")
    click.echo("\nNext:")
    for number, (say, do) in enumerate(report.steps, 1):
        click.echo(f"  {number}. {say}")
        if do:
            click.echo(f"       {do}")
