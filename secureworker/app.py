"""The composition root: from settings and a policy to a worker at work. The only module that names concrete engines."""

import asyncio
import functools
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from secureworker import __version__
from secureworker.artifacts.inputs import HttpInputs, InputSettings
from secureworker.artifacts.seal import SealedOutputs
from secureworker.artifacts.store import HttpArtifactStore, Storage, UploadSettings
from secureworker.core.audit import AuditRecord, Detail, Ending, Event, text
from secureworker.core.errors import HostError, PolicyError, SecureworkerError, SettingsError
from secureworker.core.ids import WorkerIdentity
from secureworker.core.policy import Policy
from secureworker.core.room import needed
from secureworker.host.clock import SystemClock
from secureworker.host.guards.looking import Looking
from secureworker.host.guards.programs import ControlGroups, Programs
from secureworker.host.guards.space import Memory, StateDirectory
from secureworker.host.guards.standing import Clocks, Evidence, Expiry, ServerTime
from secureworker.host.http import open_session
from secureworker.host.lending import LentSecrets, check_sources, memory_directory, sweep_memory
from secureworker.host.tasklog import FileTaskLogs, LogSettings
from secureworker.host.workspace import DirectoryWorkspaces
from secureworker.policyfile import load, unenforceable
from secureworker.policyfile.manifest import manifest, read_signature
from secureworker.ports import AuditLog, Events, Queue
from secureworker.proxy.doors import open_doors
from secureworker.queue.claiming import TaskclusterQueue, ask_time, check_queue, open_calls
from secureworker.queue.services import Services
from secureworker.queue.upstream import UpstreamTasks
from secureworker.registration.source import Held, Source, Surroundings, begin
from secureworker.sandbox.engine import OciSandbox, SandboxSettings, open_sandbox
from secureworker.sandbox.netns import NamespaceNetworks
from secureworker.signing.client import SignerClient, child_settings, child_signer, connected_signer
from secureworker.signing.keys import PublicKey, read_public_key
from secureworker.signing.keyuris import files_of
from secureworker.signing.policies import MAX_BYTES, check_policy
from secureworker.signing.verify import checks
from secureworker.worker.audited import (
    AuditedDoors,
    AuditedQueue,
    AuditedSandbox,
    AuditedSecrets,
    AuditedStore,
    conclude,
    policy_record,
)
from secureworker.worker.loop import ClaimLoop, Ended
from secureworker.worker.shutdown import Shutdown
from secureworker.worker.supervise import supervise
from secureworker.worker.together import HostGuards, Watchers
from secureworker.worker.tools import Tools

logger = logging.getLogger(__name__)

DEFAULT_DRAIN_SECONDS: Final = 60.0
AUDIT_LOG: Final = "audit"
"""Below the state directory: the audit log, which is the signer's."""
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
    key: str | None
    """URI of the signing key, for a signer of our own; None where `signer` names one that has it."""
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
    signer: str | None = None
    """`unix:/path`: where a signer listens that somebody else has started."""
    signer_user: str | None = None
    """Whom a signer of our own becomes, where we are root; None: an id that is nobody's."""
    retired_keys: tuple[str, ...] = ()
    """Public keys, or files that hold them, under which the audit log was begun."""
    audit_log: str | None = None
    """The directory of the audit log of a signer of our own; None: below the state directory."""
    log_format: str = "human"
    disk_per_run: int | None = None
    """Bytes that must be free for each run before it is claimed; None: what the policy lets scripts use."""
    memory_per_run: int | None = None
    """The same, of memory."""


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


@dataclass(slots=True)
class Reloading:
    """The policy in force, and how it is read again (SIGHUP)."""

    policy: Policy
    load: Callable[[], Policy]

    async def again(self) -> bool:
        """Read the policy again; say whether it is another one, for the same pool. What is wrong is logged."""
        try:
            found = await asyncio.to_thread(self.load)
        except SecureworkerError as error:
            logger.error("the policy cannot be used, so the old one stays: %s", error)  # noqa: TRY400 - says it all
            return False
        if (found.root_url, found.worker_pool) != (self.policy.root_url, self.policy.worker_pool):
            logger.error(
                "the policy is for %s at %s now, so the old one stays; start another worker for that",
                found.worker_pool,
                found.root_url,
            )
            return False
        if (found.sha256, found.files) == (self.policy.sha256, self.policy.files):
            logger.info("the policy is as it was")
            return False
        self.policy = found
        return True


def unwrapped(tools: Tools, queue: Queue) -> tuple[Tools, Queue]:
    """Give the ports as they are: what every worker works with. Tests put something between."""
    return tools, queue


async def serve(
    policy: Policy,
    settings: Settings,
    events: Events,
    load: Callable[[], Policy] | None = None,
    wrap: Callable[[Tools, Queue], tuple[Tools, Queue]] = unwrapped,
) -> Ended:
    """Work until told to end. Everything is checked before the first claim, and nothing is left behind.

    Args:
        policy: what this worker may do.
        settings: what the operator says beside it.
        events: what the operator asks for while it works.
        load: reads the policy again. With another one the worker begins anew between tasks: every check is made again.
        wrap: gives the ports that the loop works with. For who calls this from Python; no option and no variable of
            the environment leads here.

    Raises:
        HostError: something on this host is not as it must be; no task was claimed.
        ServiceError: the Queue cannot be reached; no task was claimed.
    """
    reloading = None if load is None else Reloading(policy, load)
    claimed = 0
    while True:
        left = None if settings.tasks is None else settings.tasks - claimed
        ended, anew = await _serve_once(policy, replace(settings, tasks=left), events, reloading, wrap)
        claimed += ended.claimed
        if reloading is None or not anew or ended.fault is not None or left == ended.claimed:
            return replace(ended, claimed=claimed)
        policy = reloading.policy


async def _serve_once(
    policy: Policy,
    settings: Settings,
    events: Events,
    reloading: Reloading | None,
    wrap: Callable[[Tools, Queue], tuple[Tools, Queue]],
) -> tuple[Ended, bool]:
    """Work with one policy; say too whether to begin anew with another."""
    async with _worker(policy, settings) as (wired, audited, held):
        tools, queue = wrap(wired, audited)
        logger.info("claiming tasks of %s", policy.worker_pool)
        shutdown = Shutdown(tools.clock, settings.drain_seconds, None if reloading is None else reloading.again)
        loop = ClaimLoop(queue, tools, shutdown, tasks=settings.tasks)
        ended = await supervise(loop.serve(events), *held.keepers(shutdown))
        if held.lapsed and ended.fault is None:
            ended = replace(ended, fault=HostError(f"{held.lapsed[0]}; give this worker new ones"))
        details: tuple[tuple[str, Detail], ...] = (("reason", text(ended.reason)), ("tasks", ended.claimed))
        ending = Ending.OK if ended.fault is None else Ending.FAILED
        await conclude(tools.audit, AuditRecord(Event.WORKER_STOP, ending, details=details))
        return ended, shutdown.starts_anew


@asynccontextmanager
async def _worker(policy: Policy, settings: Settings) -> AsyncIterator[tuple[Tools, AuditedQueue, Held]]:
    """Wire the ports, each after what it relies on has been checked."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        # 1. Our directory, and the lock of it, which the sandbox takes. It sweeps what an earlier worker left of
        #    processes, and only then may their files go.
        state = Path(settings.state_dir)
        await asyncio.to_thread(_make_directories, state)
        secrets = (*_signers_files(settings), *settings.out_of_reach)
        sandbox_settings = SandboxSettings(
            settings.state_dir,
            runtime=settings.runtime,
            secrets=secrets,
            unlimited=all(rule.unlimited for rule in policy.scripts),
        )
        oci = await stack.enter_async_context(open_sandbox(sandbox_settings))
        # 2. The signer, and with it the log of everything that follows. It holds the key; we never do.
        signer = await stack.enter_async_context(_signer(policy, settings))
        logger.info("policy sha256 %s for %s at %s", policy.sha256, policy.worker_pool, policy.root_url)
        logger.info("signing with %s as %s", signer.public_key.fingerprint, settings.identity)
        await _say_who_we_are(signer, policy)
        sandbox = AuditedSandbox(oci, signer)
        left = [("containers", oci.swept), ("secrets", await asyncio.to_thread(sweep_memory, str(state / MEMORY)))]
        memory = await _prepare_secrets(policy, settings, stack)
        workspaces = DirectoryWorkspaces(str(state / "workspaces"), memory=memory or "")
        left += [("workspaces", await workspaces.sweep()), ("logs", await asyncio.to_thread(_sweep_logs, state))]
        await _tell_of_sweep(signer, dict(left))
        # 3. The sandbox holds, here and now.
        passed = await sandbox.self_test()
        for line in passed:
            logger.debug("self-test: %s", line)
        logger.info("self-test: all %d probes of %s failed to get out", len(passed), oci.runtime)
        # 4. The Queue is there, and our credentials can do our work, and nothing else.
        server_time = ServerTime(clock)
        calls = await stack.enter_async_context(open_calls(policy.root_url, clock, server_time.heard))
        await check_queue(calls)
        services = Services(calls)
        check = functools.partial(services.check_privileges, identity=settings.identity, extra=policy.worker_scopes)
        around = Surroundings(settings.identity, policy.root_url, services, check, clock)
        held = await begin(settings.credentials, around)
        queue = TaskclusterQueue(settings.identity, held.own.current, calls)
        session = await stack.enter_async_context(open_session())
        doors = await stack.enter_async_context(open_doors())
        looking = await asyncio.to_thread(_look_at_host, policy, settings, oci)
        stack.callback(looking.close)
        yield (
            Tools(
                policy=policy,
                identity=settings.identity,
                clock=clock,
                logs=FileTaskLogs(LogSettings(str(state / LOGS), policy.sha256), clock, held.own.masked),
                workspaces=workspaces,
                networks=NamespaceNetworks(),
                doors=AuditedDoors(doors, signer),
                inputs=HttpInputs(session, UpstreamTasks(calls), clock, InputSettings(policy.root_url)),
                checks=checks(),
                secrets=AuditedSecrets(LentSecrets(memory, settings.credentials_directory, services.secret), signer),
                sandbox=sandbox,
                outputs=SealedOutputs(clock),
                signer=signer,
                store=AuditedStore(
                    HttpArtifactStore(session, clock, UploadSettings(policy.root_url, settings.storage)), signer
                ),
                audit=signer,
                guard=HostGuards(
                    (
                        looking,
                        Evidence(signer),
                        Clocks(server_time, functools.partial(ask_time, calls)),
                        Expiry(held.own, clock),
                    )
                ),
                watcher=Watchers(),
            ),
            AuditedQueue(queue, signer),
            held,
        )


def _look_at_host(policy: Policy, settings: Settings, oci: OciSandbox) -> Looking:
    """Give what looks at this machine before each claim."""
    room = needed(policy).with_own(settings.disk_per_run, settings.memory_per_run)
    try:
        programs = Programs(oci.programs)
    except OSError as error:
        raise HostError(f"{error.filename} cannot be read: {error.strerror}") from error
    memory = Memory(room, oci.groups.get("memory"))
    return Looking((StateDirectory(settings.state_dir, room), memory, programs, ControlGroups(oci.groups)))


def _signer(policy: Policy, settings: Settings) -> AbstractAsyncContextManager[SignerClient]:
    """Give the signer that was chosen: one that runs already, or a child of ours."""
    if settings.signer is not None:
        scheme, _, path = settings.signer.partition(":")
        if scheme != "unix" or not path.startswith("/"):
            raise SettingsError(f"the signer is set to {settings.signer!r}; unix:/path/to/socket is expected")
        return connected_signer(path, settings.identity)
    assert settings.key is not None
    its = child_settings(
        settings.identity,
        settings.key,
        _audit_log(settings),
        root_url=policy.root_url,
        user=settings.signer_user,
        retired_keys=tuple(map(_public_key, settings.retired_keys)),
    )
    return child_signer(its, settings.identity, log_format=settings.log_format)


def _public_key(given: str) -> PublicKey:
    try:
        return read_public_key(given)
    except ValueError as error:
        raise SettingsError(f"a retired key cannot be used: {error}") from error


async def _say_who_we_are(audit: AuditLog, policy: Policy) -> None:
    who: tuple[tuple[str, Detail], ...] = (("pid", os.getpid()), ("version", __version__))
    await audit.append(AuditRecord(Event.WORKER_START, details=who))
    await audit.append(policy_record(policy))


async def _tell_of_sweep(audit: AuditLog, left: dict[str, int]) -> None:
    """Write down what an earlier worker had left, whose end was none of its own."""
    if any(left.values()):
        logger.warning(
            "an earlier worker was killed; removed: %s", ", ".join(f"{n} {what}" for what, n in left.items())
        )
        await audit.append(AuditRecord(Event.SWEEP, details=tuple(left.items())))


def _audit_log(settings: Settings) -> str:
    return settings.audit_log or str(Path(settings.state_dir) / AUDIT_LOG)


def _signers_files(settings: Settings) -> tuple[str, ...]:
    """Say which files are the signer's alone, as far as that is ours to know: its key, and the log."""
    return () if settings.key is None else (*files_of(settings.key), _audit_log(settings))


async def _prepare_secrets(policy: Policy, settings: Settings, stack: AsyncExitStack) -> str | None:
    """See that every secret of this host can be had, and make the place that they are lent in.

    Returns:
        the place; None where no script has a secret.

    Raises:
        HostError: a secret is missing, or others could have it; or there is no place in memory.
    """
    places = tuple(secret.place for script in policy.scripts for secret in script.secrets)
    if not places:
        return None
    await asyncio.to_thread(check_sources, places, settings.credentials_directory)
    return stack.enter_context(memory_directory(f"{settings.state_dir}/{MEMORY}"))


def _make_directories(state: Path) -> None:
    try:
        # 0711: scripts run as ids of their own, and pass through to what is theirs.
        state.mkdir(mode=0o711, parents=True, exist_ok=True)
        (state / LOGS).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the state directory {state} cannot be used: {error.strerror}; give another by --state-dir"
        ) from error


def _sweep_logs(state: Path) -> int:
    logs = list((state / LOGS).iterdir())
    for log in logs:
        log.unlink()
    return len(logs)
