"""Inputs of scripts: the facts about other tasks, and the artifacts that their own statements vouch for.

What is fetched lies in a private place, until its digest is the one that was signed. Only then it gets its name in the
script's directory.
"""

import asyncio
import functools
import hashlib
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol, final

import aiohttp

from secureworker.artifacts.abreast import each
from secureworker.artifacts.download import Allowance, NotDownloaded, TooLarge, download
from secureworker.artifacts.mirror import make_tree, read_tree
from secureworker.artifacts.site import SITE, Site, SiteSettings
from secureworker.core.chain import MAX_STATEMENT_BYTES, Statements, Upstream
from secureworker.core.errors import BadPayload, HostError, ServiceError
from secureworker.core.evidence import SIGNATURE_BYTES
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.inputs import Input, NotThere, Received, Source
from secureworker.core.origin import NoOrigin, TraceRule, read_origin
from secureworker.core.plan import INPUT_DIR, TASK_DIR
from secureworker.core.provenance import PROVENANCE
from secureworker.core.statement import CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE
from secureworker.core.trace import TASK_GRAPH, Ancestry, DecisionFacts, Tree, follow, is_decision
from secureworker.host import files
from secureworker.host.threads import in_thread
from secureworker.ports import ClaimedRun, Clock, Workspace

logger = logging.getLogger(__name__)

_LONGEST_WAIT_SECONDS: Final = 30.0
_GRAPH_BYTES: Final = 64 * 1024 * 1024
"""Of a task graph: 20,000 tasks of 3 KiB."""
_STATEMENTS: Final = (
    (CHAIN_OF_TRUST, MAX_STATEMENT_BYTES),
    (CHAIN_OF_TRUST_SIGNATURE, SIGNATURE_BYTES),
    # The same task and artifacts, in base64.
    (PROVENANCE, 2 * MAX_STATEMENT_BYTES),
)


class UpstreamQueue(Protocol):
    """What is asked of the Queue, with a run's credentials."""

    async def facts(self, run: ClaimedRun, task_id: TaskId) -> Upstream:
        """Give a task and its last run, without its statements."""

    async def locate(self, run: ClaimedRun, task_id: TaskId, run_id: RunId, name: ArtifactName) -> Source | NotThere:
        """Say where an artifact of one run is."""


@dataclass(frozen=True, slots=True)
class InputSettings:
    """How inputs are fetched."""

    root_url: str
    """Where it is https, nothing is fetched by http."""
    at_a_time: int = 8
    attempts: int = 6
    """Per artifact: with waits of 1, 2, 4, 8, 16 s, half a minute of an outage."""
    stall_seconds: float = 60.0
    statements_bytes: int = 256 * 1024 * 1024
    """Of all tasks of a run together: they are in memory until they are judged."""
    trace_seconds: float = 600.0
    """For following inputs to the tree."""
    site: SiteSettings = SITE
    """How repositories are read over https."""


class _Absent(Exception):
    """The Queue says that an artifact is not there; its argument says why."""


@final
class HttpInputs:
    """The port `Inputs`, by HTTP."""

    def __init__(
        self, session: aiohttp.ClientSession, queue: UpstreamQueue, clock: Clock, settings: InputSettings
    ) -> None:
        """Take a session without credentials: a storage is not to see any."""
        self._session = session
        self._queue = queue
        self._clock = clock
        self._settings = settings

    async def gather(self, run: ClaimedRun, tasks: tuple[TaskId, ...]) -> tuple[Upstream, ...]:
        """Fetch the facts about tasks; several at a time, in the order of `tasks`."""
        total = Allowance(self._settings.statements_bytes)
        found: dict[TaskId, Upstream] = {}

        async def look(task_id: TaskId) -> None:
            found[task_id] = await self._with_statements(run, await self._queue.facts(run, task_id), total)

        await each(tasks, look, at_a_time=self._settings.at_a_time)
        return tuple(found[task_id] for task_id in tasks)

    async def trace(self, run: ClaimedRun, tasks: tuple[TaskId, ...], rule: TraceRule) -> Ancestry:
        """Fetch the facts about tasks and all that they come from; see `ports.Inputs`."""
        total = Allowance(self._settings.statements_bytes)
        known: dict[TaskId, Upstream] = {}
        decisions: dict[TaskId, DecisionFacts] = {}

        async def look(task_id: TaskId) -> None:
            known[task_id] = await self._queue.facts(run, task_id)

        async def complete(upstream: Upstream) -> None:
            known[upstream.task_id] = await self._with_statements(run, upstream, total)
            if is_decision(upstream, rule):
                decisions[upstream.task_id] = await self._decision(run, upstream, rule, total)

        try:
            async with asyncio.timeout(self._settings.trace_seconds):
                # What comes next is in a definition: statements need not be waited for before it is known.
                while unknown := follow(tasks, known, rule).unknown:
                    await each(unknown, look, at_a_time=self._settings.at_a_time)
                await each(tuple(known.values()), complete, at_a_time=self._settings.at_a_time)
        except TimeoutError as error:
            seconds = self._settings.trace_seconds
            raise ServiceError(f"the inputs could not be followed to the tree within {seconds:g} s") from error
        return Ancestry(tuple(known.values()), tuple(decisions[task_id] for task_id in known if task_id in decisions))

    async def _decision(self, run: ClaimedRun, upstream: Upstream, rule: TraceRule, total: Allowance) -> DecisionFacts:
        content = bytearray()
        if upstream.last is None:
            return DecisionFacts(upstream.task_id, missing=f"{TASK_GRAPH}: there is no run")
        what = Input(upstream.task_id, upstream.last.run_id, TASK_GRAPH, _NO_DIGEST)
        try:
            await self._into_memory(run, what, content, _GRAPH_BYTES, total)
        except (_Absent, NotDownloaded) as error:
            return DecisionFacts(upstream.task_id, missing=f"{TASK_GRAPH}: {error}")
        return DecisionFacts(upstream.task_id, bytes(content), tree=await self._tree(upstream, rule))

    async def _tree(self, upstream: Upstream, rule: TraceRule) -> Tree:
        definition = upstream.definition or {}
        try:
            origin = read_origin(definition, rule)
        except NoOrigin as error:
            return Tree(missing=str(error))
        about = (origin, upstream.task_id, definition, self._settings.root_url)
        website = origin.repository.website
        if website is None:
            return await asyncio.to_thread(read_tree, *about)
        found = await Site(self._session, self._clock, website, self._settings.site).read(origin)
        if isinstance(found, Tree):
            return found
        return await asyncio.to_thread(make_tree, found.refs, found.file, *about)

    async def _with_statements(self, run: ClaimedRun, upstream: Upstream, total: Allowance) -> Upstream:
        if upstream.definition is None or upstream.last is None or upstream.last.state != "completed":
            # Without a completed run its statements are not looked at, whatever they are.
            return upstream
        found: dict[ArtifactName, bytes] = {}
        for name, limit in _STATEMENTS:
            content = bytearray()
            try:
                what = Input(upstream.task_id, upstream.last.run_id, name, _NO_DIGEST)
                await self._into_memory(run, what, content, limit, total)
            except _Absent as absent:
                if name != PROVENANCE:
                    return replace(upstream, statements=Statements(missing=f"{name}: {absent}"))
            except NotDownloaded as error:
                return replace(upstream, statements=Statements(missing=f"{name}: {error}"))
            else:
                found[name] = bytes(content)
        return replace(
            upstream,
            statements=Statements(found[CHAIN_OF_TRUST], found[CHAIN_OF_TRUST_SIGNATURE], found.get(PROVENANCE)),
        )

    async def _into_memory(
        self, run: ClaimedRun, what: Input, content: bytearray, limit: int, total: Allowance
    ) -> None:
        def write(block: bytes) -> None:
            try:
                total.take(len(block))
            except TooLarge:
                # Of nobody in particular: every task that may be depended on can publish something large.
                most = self._settings.statements_bytes
                why = f"the statements of all wanted tasks have more than {most} bytes; want fewer"
                raise BadPayload((f"payload.upstreamArtifacts: {why}",)) from None
            content.extend(block)

        async def attempt(source: Source) -> None:
            total.give_back(len(content))
            content.clear()
            await self._download(source, write, Allowance(limit))

        await self._until_had(run, what, attempt)

    async def fetch(self, run: ClaimedRun, inputs: tuple[Input, ...], max_bytes: int, workspace: Workspace) -> Received:
        """Fetch inputs, several at a time; see `ports.Inputs`."""
        allowance = Allowance(max_bytes)
        placed: dict[Input, int] = {}
        absent: list[tuple[Input, str]] = []

        async def take(numbered: tuple[int, Input]) -> None:
            number, wanted = numbered
            landing = _Landing(f"{workspace.spool}/input-{number}")
            why = await self._take(run, wanted, landing, allowance, workspace)
            if not why:
                placed[wanted] = landing.size
            elif wanted.optional:
                absent.append((wanted, why))
            else:
                raise BadPayload((f"the input {wanted} cannot be used: {why}",))

        numbered = tuple(enumerate(inputs))
        await each(numbered, take, at_a_time=self._settings.at_a_time)
        order = {wanted: number for number, wanted in numbered}
        return Received(
            tuple(sorted(placed, key=order.__getitem__)),
            tuple(sorted(absent, key=lambda pair: order[pair[0]])),
            sum(placed.values()),
        )

    async def _take(
        self, run: ClaimedRun, wanted: Input, landing: "_Landing", allowance: Allowance, workspace: Workspace
    ) -> str:
        """Fetch one input into its place; say why not, where that is for good."""

        async def attempt(source: Source) -> None:
            allowance.give_back(landing.size)
            await in_thread(landing.open)
            await self._download(source, landing.write, allowance)

        try:
            await self._until_had(run, wanted, attempt)
            found = landing.digest.hexdigest()
            why = "" if found == wanted.sha256 else f"it has the sha256 {found}, and {wanted.sha256} was signed"
            if not why:
                await in_thread(functools.partial(landing.place, workspace, wanted))
        except TooLarge as error:
            # Also where it is optional. Which of several would be left out must not depend on who comes first.
            raise BadPayload((f"the input {wanted} is too large: {error}; the rule is upstream.max-size",)) from error
        except (_Absent, NotDownloaded) as error:
            why = str(error)
        finally:
            landing.close()
        if why:
            await in_thread(landing.discard)
        return why

    async def _download(self, source: Source, write: Callable[[bytes], None], allowance: Allowance) -> None:
        plain = self._settings.root_url.startswith("http://")
        stall_seconds = self._settings.stall_seconds
        await download(self._session, source, write, allowance, plain=plain, stall_seconds=stall_seconds)

    async def _until_had(self, run: ClaimedRun, what: Input, attempt: Callable[[Source], Awaitable[None]]) -> None:
        """Ask where it is, and try, until it worked. Every attempt asks anew: addresses are good for some minutes.

        Raises:
            _Absent, NotDownloaded: it cannot be had, now and later.
            ServiceError: not now, after all attempts.
        """
        number = 1
        while True:
            source = await self._queue.locate(run, what.task_id, what.run_id, what.name)
            if isinstance(source, NotThere):
                raise _Absent(source.why)
            try:
                return await attempt(source)
            except NotDownloaded as error:
                if not error.again:
                    raise
                if number >= self._settings.attempts:
                    raise ServiceError(f"the input {what} cannot be had, attempt {number}: {error}") from error
                logger.info("%s: the input %s is not there yet, attempt %d: %s", run.claim, what, number, error)
            longest = min(2.0 ** (number - 1), _LONGEST_WAIT_SECONDS)
            await self._clock.sleep(longest * (0.5 + secrets.randbelow(512) / 1024))
            number += 1


_NO_DIGEST: Final = Sha256("0" * 64)
"""Of statements: what they hold is proved by their signature."""


@dataclass
class _Landing:
    """A file that nobody else can see, while it comes."""

    path: str
    size: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _descriptor: int = -1

    def open(self, _: object) -> None:
        """Begin, or begin again."""
        self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise HostError(f"an input cannot be written: {error.strerror}") from error
        self.size, self.digest = 0, hashlib.sha256()

    def write(self, block: bytes) -> None:
        """Take the next bytes."""
        self.digest.update(block)
        self.size += len(block)
        view = memoryview(block)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise HostError(f"an input cannot be written: {error.strerror}; is the disk full?") from error

    def place(self, workspace: Workspace, wanted: Input, _: object) -> None:
        """Give it to the script, under its name. No process of the script is alive yet."""
        directory = Path(workspace.task + INPUT_DIR.removeprefix(TASK_DIR))
        target = directory / wanted.task_id / wanted.name
        try:
            for parent in reversed([place for place in target.parents if place.is_relative_to(directory)]):
                with suppress(FileExistsError):
                    files.make_directory(str(parent), mode=0o755, owner=workspace.uid)
            os.fchown(self._descriptor, workspace.uid, workspace.uid)
            os.fchmod(self._descriptor, 0o644)
            Path(self.path).rename(target)
        except OSError as error:
            raise HostError(f"an input cannot be put into its place: {error.strerror}") from error

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self, _: object) -> None:
        """Remove what is of no use."""
        Path(self.path).unlink(missing_ok=True)
