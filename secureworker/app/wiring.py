"""From settings and a policy to ports: the only module that names concrete engines."""

import asyncio
import functools
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from secureworker import __version__
from secureworker.app.settings import AUDIT_LOG, LOGS, MEMORY, Settings
from secureworker.app.watching import Lookers
from secureworker.artifacts.inputs import HttpInputs, InputSettings
from secureworker.artifacts.seal import SealedOutputs
from secureworker.artifacts.store import HttpArtifactStore, UploadSettings
from secureworker.core.audit import AuditRecord, Detail, Event
from secureworker.core.errors import HostError, SettingsError
from secureworker.core.happening import Appended, Began, SelfTested, SignerMet
from secureworker.core.policy import Policy
from secureworker.core.room import needed
from secureworker.host.clock import SystemClock
from secureworker.host.guards.looking import Looking
from secureworker.host.guards.programs import ControlGroups, PinnedFiles, Programs
from secureworker.host.guards.space import Memory, StateDirectory
from secureworker.host.guards.standing import Clocks, Evidence, Expiry, ServerTime
from secureworker.host.http import DEFAULT_LIMITS, open_session
from secureworker.host.lending import LentSecrets, check_sources, memory_directory, sweep_memory
from secureworker.host.sole import sole_worker
from secureworker.host.tasklog import FileTaskLogs, LogSettings
from secureworker.host.workspace import DirectoryWorkspaces
from secureworker.livelog.showing import shown_logs
from secureworker.operation.heart import Heart
from secureworker.operation.latency import TimedAuditLog, TimedSigner
from secureworker.ports import AuditLog, LiveLogs
from secureworker.proxy.doors import open_doors
from secureworker.queue.claiming import TaskclusterQueue, ask_time, check_queue, open_calls
from secureworker.queue.quarantine import Quarantine
from secureworker.queue.services import Services
from secureworker.queue.upstream import UpstreamTasks
from secureworker.registration.source import Held, Surroundings, begin
from secureworker.sandbox.engine import OciSandbox, SandboxSettings, open_sandbox
from secureworker.sandbox.netns import NamespaceNetworks
from secureworker.signing.client import SignerClient, child_settings, child_signer, connected_signer
from secureworker.signing.keyuris import files_of
from secureworker.signing.publickeys import PublicKey, read_public_key
from secureworker.signing.verify import checks
from secureworker.worker.audited import (
    AuditedDoors,
    AuditedQueue,
    AuditedSandbox,
    AuditedSecrets,
    AuditedStore,
    policy_record,
)
from secureworker.worker.live import NoLiveLogs
from secureworker.worker.together import HostGuards
from secureworker.worker.tools import Tools

logger = logging.getLogger(__name__)


@asynccontextmanager
async def wired(
    policy: Policy, settings: Settings, lookers: Lookers
) -> AsyncIterator[tuple[Tools, AuditedQueue, Held]]:
    """Wire the ports, each after what it relies on has been checked; who looks is told of that too."""
    clock = SystemClock()
    watcher, metrics = lookers.watcher, lookers.operation.metrics
    async with AsyncExitStack() as stack:
        # 1. The lock of our directory, which the sandbox takes. It sweeps what an earlier worker left of processes, and
        #    only then may their files go.
        state = Path(settings.state_dir)
        secrets = (*_signers_files(settings), *settings.out_of_reach)
        sandbox_settings = SandboxSettings(
            settings.state_dir,
            runtime=settings.runtime,
            secrets=secrets,
            unlimited=all(rule.unlimited for rule in policy.scripts),
        )
        oci = await stack.enter_async_context(open_sandbox(sandbox_settings))
        stack.enter_context(sole_worker(settings.identity, policy.root_url))
        # 2. The signer, and with it the log of everything that follows. It holds the key; we never do.
        watcher.saw(Began(settings.identity, __version__, policy.root_url, policy.sha256))
        client = await stack.enter_async_context(_signer(policy, settings, watcher.saw))
        watcher.saw(SignerMet(client.public_key.fingerprint))
        signer = TimedAuditLog(client, metrics, clock)
        logger.info("policy sha256 %s for %s at %s", policy.sha256, policy.worker_pool, policy.root_url)
        logger.info("signing with %s as %s", client.public_key.fingerprint, settings.identity)
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
        watcher.saw(SelfTested(len(passed)))
        # 4. The Queue is there, and our credentials can do our work, and nothing else.
        server_time = ServerTime(clock)
        calls = await stack.enter_async_context(
            open_calls(policy.root_url, clock, server_time.heard, runs=settings.capacity)
        )
        await check_queue(calls)
        services = Services(calls)
        check = functools.partial(services.check_privileges, identity=settings.identity, extra=policy.worker_scopes)
        around = Surroundings(settings.identity, policy.root_url, services, check, clock)
        held = await begin(settings.credentials, around)
        queue = TaskclusterQueue(settings.identity, held.own.current, calls)
        session = await stack.enter_async_context(open_session(DEFAULT_LIMITS.shared_by(settings.capacity)))
        doors = await stack.enter_async_context(open_doors())
        looking = await asyncio.to_thread(_look_at_host, policy, settings, oci, lookers.operation.heart)
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
                signer=TimedSigner(client, metrics, clock),
                store=AuditedStore(
                    HttpArtifactStore(session, clock, UploadSettings(policy.root_url, settings.storage)), signer
                ),
                audit=signer,
                guard=HostGuards(
                    (
                        lookers.operation.heart,
                        looking,
                        Evidence(signer),
                        Clocks(server_time, functools.partial(ask_time, calls)),
                        Expiry(held.own, clock),
                        Quarantine(calls, settings.identity, held.own.current, clock),
                    )
                ),
                watcher=watcher,
                live=await _live_logs(policy, settings, stack),
            ),
            AuditedQueue(queue, signer, clock),
            held,
        )


async def _live_logs(policy: Policy, settings: Settings, stack: AsyncExitStack) -> LiveLogs:
    """Start what shows logs while they are written, where a script's rule says so.

    Raises:
        SettingsError: it is not said where to show them, or they cannot be shown there.
        HostError: what shows them does not start.
    """
    scripts = [rule.name for rule in policy.scripts if rule.live_log]
    if not scripts:
        return NoLiveLogs()
    if settings.live_logs is None:
        raise SettingsError(
            f"scripts.{scripts[0]}.live-log is true, and this worker has no place to show logs at; give it "
            "--live-log-url with a certificate and its key, or remove live-log from the policy"
        )
    return await stack.enter_async_context(shown_logs(settings.live_logs))


def _look_at_host(policy: Policy, settings: Settings, oci: OciSandbox, heart: Heart) -> Looking:
    """Give what looks at this machine before each claim."""
    room = needed(policy).with_own(settings.disk_per_run, settings.memory_per_run)
    try:
        programs = Programs(oci.programs)
    except OSError as error:
        raise HostError(f"{error.filename} cannot be read: {error.strerror}") from error

    def running() -> int:
        return heart.running

    disk = StateDirectory(settings.state_dir, room, running)
    memory = Memory(room, oci.groups.get("memory"), running)
    pinned = PinnedFiles({pin.path: pin.sha256 for rule in policy.scripts for pin in rule.pinned})
    return Looking((disk, memory, programs, pinned, ControlGroups(oci.groups)))


def _signer(
    policy: Policy, settings: Settings, grown: Callable[[Appended], None]
) -> AbstractAsyncContextManager[SignerClient]:
    """Give the signer that was chosen: one that runs already, or a child of ours."""
    if settings.signer is not None:
        scheme, _, path = settings.signer.partition(":")
        if scheme != "unix" or not path.startswith("/"):
            raise SettingsError(f"the signer is set to {settings.signer!r}; unix:/path/to/socket is expected")
        return connected_signer(path, settings.identity, grown=grown)
    assert settings.key is not None
    its = child_settings(
        settings.identity,
        settings.key,
        _audit_log(settings),
        root_url=policy.root_url,
        user=settings.signer_user,
        retired_keys=tuple(map(_public_key, settings.retired_keys)),
    )
    return child_signer(its, settings.identity, log_format=settings.log_format, grown=grown)


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
    return stack.enter_context(memory_directory(f"{settings.state_dir}/{MEMORY}", settings.capacity))


def _sweep_logs(state: Path) -> int:
    logs = list((state / LOGS).iterdir())
    for log in logs:
        log.unlink()
    return len(logs)
