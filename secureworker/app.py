"""The composition root: from settings and a policy to a worker at work. The only module that names concrete engines."""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from secureworker.artifacts.seal import SealedOutputs
from secureworker.artifacts.store import HttpArtifactStore, Storage, UploadSettings
from secureworker.core.errors import PolicyError, SettingsError
from secureworker.core.ids import WorkerIdentity
from secureworker.core.policy import Policy
from secureworker.host.clock import SystemClock
from secureworker.host.http import open_session
from secureworker.host.lending import LentSecrets, check_sources, memory_directory, sweep_memory
from secureworker.host.tasklog import FileTaskLogs, LogSettings
from secureworker.host.workspace import DirectoryWorkspaces
from secureworker.policyfile import load, unenforceable
from secureworker.policyfile.manifest import manifest, read_signature
from secureworker.ports import Events
from secureworker.proxy.doors import open_doors
from secureworker.queue.claiming import TaskclusterQueue, open_calls
from secureworker.queue.services import Services
from secureworker.registration.source import Held, Source, Surroundings, begin
from secureworker.sandbox.engine import SandboxSettings, open_sandbox
from secureworker.sandbox.netns import NamespaceNetworks
from secureworker.signing.keys import load_signing_key, read_public_key
from secureworker.signing.policies import MAX_BYTES, check_policy
from secureworker.signing.signer import InProcessSigner
from secureworker.worker.loop import ClaimLoop, Ended
from secureworker.worker.shutdown import Shutdown
from secureworker.worker.supervise import supervise
from secureworker.worker.tools import Tools

logger = logging.getLogger(__name__)

DEFAULT_DRAIN_SECONDS: Final = 60.0
LOGS: Final = "logs"
"""Below the state directory: the logs of runs, until they are uploaded."""
MEMORY: Final = "secrets"
"""Below the state directory: a file system in memory, for the secrets of scripts while they run."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator sets beside the policy."""

    identity: WorkerIdentity
    credentials: Source
    """Where the worker's own credentials come from, now and later."""
    key: str
    """URI of the signing key."""
    state_dir: str
    """The worker's own directory; made where it is missing."""
    runtime: str | None = None
    storage: Storage = Storage.S3
    drain_seconds: float = DEFAULT_DRAIN_SECONDS
    tasks: int | None = None
    """End after this many tasks."""
    out_of_reach: tuple[str, ...] = ()
    """Files that the self-test shows a script cannot get at, beside the key."""
    credentials_directory: str | None = None
    """Of systemd, where it has given us any."""


def load_policy(path: str, root_url: str | None, policy_key: str | None = None) -> Policy:
    """Read the policy, and hold an operator's idea of the root URL against it.

    Args:
        path: the policy file.
        root_url: what the operator takes for the Taskcluster.
        policy_key: file with the reviewers' public key; only a policy that they signed is taken then.

    Raises:
        PolicyError: the policy cannot be used, is not signed, or has rules that nothing would enforce.
        SettingsError: it is for another Taskcluster, or the key is none.
    """
    policy = load(path)
    if policy_key is not None:
        try:
            reviewers = read_public_key(policy_key)
        except ValueError as error:
            raise SettingsError(f"the policy key cannot be used: {error}") from error
        check_policy(path, read_signature(path, MAX_BYTES), manifest(path, policy), reviewers)
    missing = unenforceable(policy)
    if missing:
        raise PolicyError(tuple(f"{path}: {line}" for line in missing))
    if root_url is not None and root_url.rstrip("/") != policy.root_url.rstrip("/"):
        raise SettingsError(
            f"the root URL is set to {root_url}, and {path} is a policy for {policy.root_url}; correct one of them"
        )
    return policy


async def serve(policy: Policy, settings: Settings, events: Events) -> Ended:
    """Work until told to end. Everything is checked before the first claim, and nothing is left behind.

    Raises:
        HostError: something on this host is not as it must be; no task was claimed.
        ServiceError: the Queue cannot be reached; no task was claimed.
    """
    async with _worker(policy, settings) as (tools, queue, held):
        logger.info("claiming tasks of %s", policy.worker_pool)
        shutdown = Shutdown(tools.clock, settings.drain_seconds)
        loop = ClaimLoop(queue, tools, shutdown, tasks=settings.tasks)
        return await supervise(loop.serve(events), *held.keepers(shutdown))


@asynccontextmanager
async def _worker(policy: Policy, settings: Settings) -> AsyncIterator[tuple[Tools, TaskclusterQueue, Held]]:
    """Wire the ports, each after what it relies on has been checked."""
    clock = SystemClock()
    # 1. The key: nothing is worth starting without it.
    signer = InProcessSigner(load_signing_key(settings.key), settings.identity, policy.sha256, root_url=policy.root_url)
    logger.info("policy sha256 %s for %s at %s", policy.sha256, policy.worker_pool, policy.root_url)
    logger.info("signing with %s as %s", signer.public_key.fingerprint, settings.identity)
    async with AsyncExitStack() as stack:
        # 2. Our directory, and the lock of it, which the sandbox takes. It sweeps what an earlier worker left of
        #    processes, and only then may their files go.
        state = Path(settings.state_dir)
        await asyncio.to_thread(_make_directories, state)
        secrets = (settings.key.partition(":")[2].removeprefix("//"), *settings.out_of_reach)
        sandbox_settings = SandboxSettings(settings.state_dir, runtime=settings.runtime, secrets=secrets)
        sandbox = await stack.enter_async_context(open_sandbox(sandbox_settings))
        memory = await _prepare_secrets(policy, settings, stack)
        workspaces = DirectoryWorkspaces(str(state / "workspaces"), memory=memory or "")
        await workspaces.sweep()
        await asyncio.to_thread(_sweep_logs, state)
        # 3. The sandbox holds, here and now.
        passed = await sandbox.self_test()
        for line in passed:
            logger.debug("self-test: %s", line)
        logger.info("self-test: all %d probes of %s failed to get out", len(passed), sandbox.runtime)
        # 4. The Queue is there, and our credentials can do our work, and nothing else.
        calls = await stack.enter_async_context(open_calls(policy.root_url, clock))
        services = Services(calls)
        check = functools.partial(services.check_privileges, identity=settings.identity, extra=policy.worker_scopes)
        around = Surroundings(settings.identity, policy.root_url, services, check, clock)
        held = await begin(settings.credentials, around)
        queue = TaskclusterQueue(settings.identity, held.own.current, calls)
        session = await stack.enter_async_context(open_session())
        doors = await stack.enter_async_context(open_doors())
        yield (
            Tools(
                policy=policy,
                identity=settings.identity,
                clock=clock,
                logs=FileTaskLogs(LogSettings(str(state / LOGS), policy.sha256), clock, held.own.masked),
                workspaces=workspaces,
                networks=NamespaceNetworks(),
                doors=doors,
                secrets=LentSecrets(memory, settings.credentials_directory, services.secret),
                sandbox=sandbox,
                outputs=SealedOutputs(clock),
                signer=signer,
                store=HttpArtifactStore(session, clock, UploadSettings(policy.root_url, settings.storage)),
            ),
            queue,
            held,
        )


async def _prepare_secrets(policy: Policy, settings: Settings, stack: AsyncExitStack) -> str | None:
    """See that every secret of this host can be had, and make the place that they are lent in.

    Returns:
        the place; None where no script has a secret.

    Raises:
        HostError: a secret is missing, or others could have it; or there is no place in memory.
    """
    directory = f"{settings.state_dir}/{MEMORY}"
    await asyncio.to_thread(sweep_memory, directory)
    places = tuple(secret.place for script in policy.scripts for secret in script.secrets)
    if not places:
        return None
    await asyncio.to_thread(check_sources, places, settings.credentials_directory)
    return stack.enter_context(memory_directory(directory))


def _make_directories(state: Path) -> None:
    try:
        # 0711: scripts run as ids of their own, and pass through to what is theirs.
        state.mkdir(mode=0o711, parents=True, exist_ok=True)
        (state / LOGS).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the state directory {state} cannot be used: {error.strerror}; give another by --state-dir"
        ) from error


def _sweep_logs(state: Path) -> None:
    for log in (state / LOGS).iterdir():
        log.unlink()

