"""Who the worker is and where its own credentials come from, out of the options of `run`."""

import os
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from secureworker.core.policy import Policy
    from secureworker.registration.runner import Runner
    from secureworker.registration.runner_config import RunnerConfig
    from secureworker.registration.source import Source

REGISTRATION = "registration.json"
"""Below the state directory: what the next registration takes."""


@dataclass(frozen=True, slots=True)
class Own:
    """What is known of the worker before its policy is."""

    worker_group: str
    worker_id: str
    source: "Source | None"
    """None: worker-runner, which is talked to later."""
    runner: "RunnerConfig | None"
    files: tuple[str, ...]
    """With secrets in them: the self-test shows that scripts cannot get at them."""

    def hold_against(self, policy: "Policy") -> None:
        """See that worker-runner started this worker for the pool and the Taskcluster that the policy is for.

        Raises:
            SettingsError: it did not.
        """
        if self.runner is None:
            return
        from secureworker.core.errors import SettingsError

        pool = self.runner.identity.pool
        if (self.runner.root_url.rstrip("/"), pool) != (policy.root_url.rstrip("/"), policy.worker_pool):
            raise SettingsError(
                f"worker-runner started this worker for {pool} at {self.runner.root_url}, and the policy is for "
                f"{policy.worker_pool} at {policy.root_url}; correct one of them"
            )


def read_own(options: Mapping[str, Any], environment: MutableMapping[str, str]) -> Own:
    """Find out who the worker is, and take the secrets out of the environment.

    Raises:
        SettingsError: credentials are missing, or others can read them.
        click.UsageError: options that do not go together.
    """
    from secureworker.host.credentials import SYSTEMD_NAME, load_credentials, take_variables

    config, by_runner = options["config"], options["with_worker_runner"]
    if (config is None) == by_runner:
        raise click.UsageError("--config and --with-worker-runner go together: worker-runner gives both.")
    if config is not None:
        return _by_runner(options, environment)
    for name in ("worker_group", "worker_id"):
        if options[name] is None:
            raise click.UsageError(f"Missing option '--{name.replace('_', '-')}'.")
    who = (options["worker_group"], options["worker_id"])
    if options["register"] is not None:
        take_variables(environment)
        return _registering(options, environment.get("CREDENTIALS_DIRECTORY"))
    path = options["credentials_file"]
    credentials = load_credentials(path, environment)
    if path is None and os.path.exists(f"{environment.get('CREDENTIALS_DIRECTORY', '')}/{SYSTEMD_NAME}"):  # noqa: PTH110 - no Path is needed
        path = f"{environment['CREDENTIALS_DIRECTORY']}/{SYSTEMD_NAME}"
    if path is None:
        return Own(*who, credentials, None, ())
    from secureworker.registration.source import CredentialsFile

    absolute = os.path.abspath(path)  # noqa: PTH100 - not resolved: a link may be made to point elsewhere
    return Own(*who, CredentialsFile(absolute), None, (absolute,))


def _registering(options: Mapping[str, Any], directory: str | None) -> Own:
    from secureworker.registration.source import StaticProvider
    from secureworker.registration.static import read_static_secret

    if options["credentials_file"] is not None:
        raise click.UsageError("--register and --credentials-file do not go together: registering gives credentials.")
    path = options["registration_secret"]
    secret = read_static_secret(path, directory)
    kept = os.path.join(os.path.abspath(options["state_dir"]), REGISTRATION)  # noqa: PTH100, PTH118 - as above
    files = (kept,) if path is None else (kept, os.path.abspath(path))  # noqa: PTH100 - as above
    source = StaticProvider(options["register"], secret, kept)
    return Own(options["worker_group"], options["worker_id"], source, None, files)


def _by_runner(options: Mapping[str, Any], environment: MutableMapping[str, str]) -> Own:
    from secureworker.host.credentials import take_variables
    from secureworker.registration.runner_config import read_runner_config

    for name in ("worker_group", "worker_id", "credentials_file", "register"):
        if options[name] is not None:
            raise click.UsageError(f"--config and --{name.replace('_', '-')} do not go together.")
    take_variables(environment)
    config = read_runner_config(options["config"])
    identity = config.identity
    absolute = os.path.abspath(options["config"])  # noqa: PTH100 - as above
    return Own(identity.worker_group, identity.worker_id, None, config, (absolute,))


@asynccontextmanager
async def connected_source(own: Own, *, remove: bool) -> "AsyncIterator[tuple[Source, Runner | None]]":
    """Give where credentials come from; where that is worker-runner, talk to it, and tell it how the worker ends.

    Raises:
        HostError: there is no worker-runner at the other end.
    """
    if own.runner is None:
        assert own.source is not None
        yield own.source, None
        return
    import asyncio
    import logging

    from secureworker.core.errors import SecureworkerError
    from secureworker.host.own_credentials import OwnCredentials
    from secureworker.host.streams import taken_pipes
    from secureworker.registration.runner import RunnerLog, open_runner
    from secureworker.registration.source import FromRunner

    incoming, outgoing = taken_pipes()
    async with open_runner(incoming, outgoing) as runner:
        handler = RunnerLog(runner, asyncio.get_running_loop())
        logging.getLogger().addHandler(handler)
        try:
            yield FromRunner(runner, OwnCredentials(own.runner.credentials)), runner
        except SecureworkerError as error:
            report_fault(runner, error)
            raise
        finally:
            logging.getLogger().removeHandler(handler)
            if remove:
                runner.remove_worker()


def report_fault(runner: "Runner", fault: Exception) -> None:
    """Tell worker-runner that the worker ends, and what kind of thing is wrong: everybody can read it, so no more."""
    runner.report_error(
        "secureworker ended",
        f"It cannot go on because of a {type(fault).__name__}; its log says what, why, and what to do.",
        {},
    )
