"""`secureworker run`: the worker."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from secureworker.cli.live import live_log_options, live_log_secrets, live_log_settings
from secureworker.cli.operation import operation_options, operation_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from secureworker.cli.own import Own
    from secureworker.core.policy import Policy
    from secureworker.ports import Queue
    from secureworker.worker.tools import Tools

    Wrap = Callable[[Tools, Queue], tuple[Tools, Queue]]

EXIT_FAULT = 1
"""The host or a service is not as it must be."""
EXIT_USAGE = 2
"""The command line, the settings or the policy are not as they must be."""


@click.command(
    "run",
    epilog="""\b
Each option can also be set by an environment variable: SECUREWORKER_POLICY, SECUREWORKER_WORKER_ID and so on.

\b
Taskcluster credentials are taken from, in this order:
  --config FILE --with-worker-runner                what worker-runner writes, and says later
  --register PROVIDER                               worker-manager gives them, and renews them
  --credentials-file FILE                           {"clientId", "accessToken", "certificate"?}, mode 0600
  $CREDENTIALS_DIRECTORY/taskcluster                the same, from systemd's LoadCredential=
  TASKCLUSTER_CLIENT_ID, _ACCESS_TOKEN, _CERTIFICATE   removed from the environment when read
They must be able to do this worker's work, and nothing else. A file is read again when it is replaced.

\b
Signals:
  SIGUSR1            claim no more, finish what runs, end; may be repeated
  SIGTERM, SIGINT    the same, and stop what still runs after --drain-seconds
  a second SIGTERM   stop what runs now
  SIGHUP             read the policy again: with another one that is valid, and for the same pool, finish what runs,
                     check everything anew, and go on with it; else report what is wrong, and keep the old one

\b
Exit codes:
  0  ended as it was asked to
  1  something on the host, or a Taskcluster service, is not as it must be
  2  the command line, the settings or the policy are not

\b
Examples:
  secureworker run --policy release.yml --worker-group dc1 --worker-id signer-1 \\
      --credentials-file /etc/secureworker/taskcluster.json --key file:/etc/secureworker/signing.key
  secureworker run --policy release.yml ... --once
""",
)
@click.option("--policy", required=True, envvar="SECUREWORKER_POLICY", metavar="FILE", help="The policy.")
@click.option(
    "--policy-key",
    envvar="SECUREWORKER_POLICY_KEY",
    metavar="FILE",
    help="The reviewers' public key: take a policy only with their signature beside it (`secureworker policy sign`).",
)
@click.option("--worker-group", envvar="SECUREWORKER_WORKER_GROUP", metavar="GROUP", help="Where this worker is.")
@click.option("--worker-id", envvar="SECUREWORKER_WORKER_ID", metavar="ID", help="Which one it is.")
@click.option(
    "--key",
    envvar="SECUREWORKER_KEY",
    metavar="URI",
    help="The signing key: file:/path (mode 0400; `secureworker keys new` makes one), credential:NAME or pkcs11:...",
)
@click.option(
    "--signer",
    envvar="SECUREWORKER_SIGNER",
    metavar="unix:PATH",
    help="A signer that runs already; instead of --key, which starts one of our own.",
)
@click.option(
    "--signer-user",
    envvar="SECUREWORKER_SIGNER_USER",
    metavar="USER",
    help="Whom a signer of our own becomes, where we are root; by default an id that is nobody's.",
)
@click.option(
    "--retired-key",
    "retired_keys",
    multiple=True,
    # The first is the option's own name, as for every other option; the second was the only one once.
    envvar=["SECUREWORKER_RETIRED_KEY", "SECUREWORKER_RETIRED_KEYS"],
    metavar="PUB",
    help="The public half of a key that --key has taken the place of; may be repeated. The audit log goes on.",
)
@click.option(
    "--audit-log",
    envvar="SECUREWORKER_AUDIT_LOG",
    metavar="DIR",
    help="Where a signer of our own keeps the audit log; by default in `audit` in the state directory.",
)
@click.option(
    "--root-url",
    envvar="SECUREWORKER_ROOT_URL",
    metavar="URL",
    help="The Taskcluster; the policy names it, and this must agree.",
)
@click.option(
    "--credentials-file",
    envvar="SECUREWORKER_CREDENTIALS_FILE",
    metavar="FILE",
    help="Taskcluster credentials; see below for other ways.",
)
@click.option(
    "--register",
    envvar="SECUREWORKER_REGISTER",
    metavar="PROVIDER",
    help="Register at worker-manager as a static worker of this provider, and get credentials there.",
)
@click.option(
    "--registration-secret",
    envvar="SECUREWORKER_REGISTRATION_SECRET",
    metavar="FILE",
    help="The secret that the worker was created with, mode 0600; by default systemd's `worker-registration`.",
)
@click.option("--config", metavar="FILE", help="What worker-runner writes for generic-worker.")
@click.option("--with-worker-runner", is_flag=True, help="Talk to worker-runner over standard input and output.")
@click.option(
    "--remove-at-end",
    envvar="SECUREWORKER_REMOVE_AT_END",
    is_flag=True,
    help="Have worker-runner remove this worker, and its machine, when it ends.",
)
@click.option(
    "--state-dir",
    envvar=["SECUREWORKER_STATE_DIR", "STATE_DIRECTORY"],
    default="/var/lib/secureworker",
    show_default=True,
    metavar="DIR",
    help="The worker's own directory, on a disk with room for what tasks write.",
)
@click.option(
    "--runtime",
    envvar="SECUREWORKER_RUNTIME",
    metavar="NAME",
    help="OCI runtime, name or path; by default the best that is installed.",
)
@click.option(
    "--storage-type",
    envvar="SECUREWORKER_STORAGE_TYPE",
    type=click.Choice(["s3", "object"]),
    default="s3",
    show_default=True,
    help="Where the Taskcluster keeps artifacts.",
)
@click.option(
    "--drain-seconds",
    envvar="SECUREWORKER_DRAIN_SECONDS",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="N",
    help="How long running tasks may go on after SIGTERM.",
)
@click.option(
    "--disk-per-run",
    envvar="SECUREWORKER_DISK_PER_RUN",
    metavar="SIZE",
    help="Claim only while this much is free in the state directory for each run; by default what the policy's most "
    "demanding script may write, and once more for the sealed copies.",
)
@click.option(
    "--memory-per-run",
    envvar="SECUREWORKER_MEMORY_PER_RUN",
    metavar="SIZE",
    help="Claim only while this much memory is available for each run; by default the policy's largest limit.",
)
@click.option(
    "--log-format",
    envvar="SECUREWORKER_LOG_FORMAT",
    type=click.Choice(["human", "json"]),
    default="human",
    show_default=True,
    help="Of the worker's log, on standard error.",
)
@click.option(
    "--status",
    "status",
    multiple=True,
    envvar="SECUREWORKER_STATUS",
    metavar="PLACE",
    help="Show what the worker does at unix:/path (by default status.sock in the state directory), and at "
    "127.0.0.1:PORT or [::1]:PORT; may be repeated. `none`: nowhere.",
)
@live_log_options
@operation_options
@click.option("--verbose", envvar="SECUREWORKER_VERBOSE", is_flag=True, help="Log details too.")
@click.option(
    "--capacity",
    envvar="SECUREWORKER_CAPACITY",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many tasks to run at once; at most what the policy allows by max-capacity.",
)
@click.option(
    "--max-tasks",
    "--tasks",
    "tasks",
    envvar=["SECUREWORKER_MAX_TASKS", "SECUREWORKER_TASKS"],
    type=click.IntRange(1),
    metavar="N",
    help="End after N tasks.",
)
@click.option("--once", is_flag=True, help="The same as --max-tasks 1.")
@click.option(
    "--idle-timeout",
    envvar="SECUREWORKER_IDLE_TIMEOUT",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="End when there was no task for so long; seen when a poll ends, which takes up to 20 s.",
)
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:
    """Claim tasks of the policy's worker pool and run them, until told to end.

    Everything is checked before the first claim: the policy, the key, the credentials, the sandbox (by attacking it
    from inside), the Queue. The worker's log goes to standard error; each task's own log is published with it.
    """
    # Imported here: `secureworker --help` must not wait for HTTP, cryptography and schemas.
    from secureworker.host.logs import LogFormat, configure
    from secureworker.host.signals import hold

    hold()
    configure(LogFormat(options["log_format"]), verbose=bool(options["verbose"]))
    # What a program gives that calls this command from Python; a command line cannot.
    context.exit(_run(options, context.obj))


def _run(options: Mapping[str, Any], wrap: "Wrap | None") -> int:
    import logging

    from secureworker.cli.own import read_own
    from secureworker.core.errors import PolicyError, SecureworkerError, SettingsError
    from secureworker.host.userns import enter

    logger = logging.getLogger(__name__)
    try:
        # Before there is any thread, and any secret but what the environment holds.
        enter()
        # First of all, so that the environment holds no secret when anything else is loaded or started.
        own = read_own(options, os.environ)
        return _serve(options, own, wrap)
    except PolicyError as error:
        for problem in error.problems:
            logger.error("%s", problem)  # noqa: TRY400 - a traceback says nothing to who wrote the policy
        return EXIT_USAGE
    except SettingsError as error:
        logger.error("%s", error)  # noqa: TRY400 - the sentence says it all
        return EXIT_USAGE
    except SecureworkerError as error:
        logger.error("%s", error)  # noqa: TRY400 - the sentence says it all
        return EXIT_FAULT


def _check_key(key: str | None, signer: str | None) -> None:
    from secureworker.core.errors import KeyUnusable
    from secureworker.signing.keyuris import scheme_of

    if (key is None) == (signer is None):
        raise click.UsageError("Missing option '--key', or '--signer' with one that has the key; not both.")
    if key is not None:
        try:
            scheme_of(key)
        except KeyUnusable as error:
            raise click.UsageError(f"Invalid value for '--key': {error}") from error


def _size(options: Mapping[str, Any], name: str) -> int | None:
    from secureworker.policyfile.quantities import parse_size

    given = options[name]
    try:
        return None if given is None else parse_size(given)
    except ValueError as error:
        raise click.UsageError(f"Invalid value for '--{name.replace('_', '-')}': {error}") from error


def _serve(options: Mapping[str, Any], own: "Own", wrap: "Wrap | None") -> int:
    import asyncio
    import functools
    import logging

    from secureworker.app import Settings, load_policy, serve, unwrapped
    from secureworker.artifacts.store import Storage
    from secureworker.cli.own import connected_source, report_fault
    from secureworker.core.errors import SettingsError
    from secureworker.core.ids import WorkerIdentity
    from secureworker.host.signals import Signals
    from secureworker.operation.view_open import parse_places

    _check_key(options["key"], options["signer"])

    def load() -> "Policy":
        return load_policy(options["policy"], options["root_url"], options["policy_key"], options["capacity"])

    policy = load()
    try:
        identity = WorkerIdentity(policy.worker_pool, own.worker_group, own.worker_id)
    except ValueError as error:
        raise SettingsError(f"{error}; correct --worker-group or --worker-id") from error
    own.hold_against(policy)
    live_logs = live_log_settings(options)
    settings = functools.partial(
        Settings,
        identity=identity,
        key=options["key"],
        state_dir=str(Path(options["state_dir"]).absolute()),
        runtime=options["runtime"],
        storage=Storage(options["storage_type"]),
        drain_seconds=options["drain_seconds"],
        capacity=options["capacity"],
        tasks=1 if options["once"] else options["tasks"],
        idle_seconds=options["idle_timeout"],
        out_of_reach=(str(Path(options["policy"]).absolute()), *own.files, *live_log_secrets(live_logs)),
        credentials_directory=os.environ.get("CREDENTIALS_DIRECTORY"),
        signer=options["signer"],
        signer_user=options["signer_user"],
        retired_keys=options["retired_keys"],
        audit_log=None if options["audit_log"] is None else str(Path(options["audit_log"]).absolute()),
        log_format=options["log_format"],
        status=parse_places(options["status"], options["state_dir"]),
        live_logs=live_logs,
        disk_per_run=_size(options, "disk_per_run"),
        memory_per_run=_size(options, "memory_per_run"),
        operation=operation_settings(options),
    )

    async def work() -> int:
        logger = logging.getLogger(__name__)
        with Signals(daemon=True).caught() as signals:
            async with connected_source(own, remove=options["remove_at_end"]) as (source, runner):
                ended = await serve(policy, settings(credentials=source), signals, load, wrap or unwrapped)
                if runner is not None and ended.fault is not None:
                    report_fault(runner, ended.fault)
        if ended.fault is not None:
            logger.error("ended: %s: %s", ended.reason, ended.fault)
            return EXIT_FAULT
        logger.info("ended: %s", ended.reason)
        return 0

    return asyncio.run(work())
