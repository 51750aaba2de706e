"""Fetching what a run published, as anybody may: without credentials, bounded, into a directory of the caller's.

Nothing is believed of what comes: it is for `secureworker verify` to say what it is worth. Of the Queue's answers, the
task's definition and who held the run are what a statement is held against.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from secureworker.core.claim import Json, parse_definition
from secureworker.core.errors import ServiceError
from secureworker.core.ids import ArtifactName, RunId, TaskId, WorkerIdentity
from secureworker.host.threads import in_thread
from secureworker.ports import Clock

PAUSES_SECONDS: Final = (0.5, 2.0)
"""Before the second attempt, and the third."""
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NONE_THERE: Final = frozenset({403, 404, 424})
"""Not ours to read, not stored, or an artifact of type `error`."""
_ELSEWHERE: Final = frozenset({301, 302, 303, 307, 308})
_REDIRECTS: Final = 5
_BLOCK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What is taken at most."""

    artifacts: int = 20_000
    total_bytes: int = 64 * 1024**3
    """Decompressed."""
    at_once: int = 8


@dataclass(frozen=True, slots=True)
class Fetched:
    """A run, as the Queue tells of it; its artifacts are in the directory."""

    task_id: TaskId
    run_id: RunId
    state: str
    """`completed`, `failed`, `exception`, or that it has not ended."""
    worker: WorkerIdentity | None
    """None: nobody ever claimed the run."""
    definition: Mapping[str, Json]
    missing: tuple[str, ...]
    """Artifacts that are listed and cannot be had, each with the reason."""


class RunFetcher:
    """Reads one deployment."""

    def __init__(
        self, session: aiohttp.ClientSession, clock: Clock, root_url: str, limits: FetchLimits | None = None
    ) -> None:
        self._session = session
        self._clock = clock
        self._queue = f"{root_url.rstrip('/')}/api/queue/v1"
        self._limits = limits or FetchLimits()
        self._left = self._limits.total_bytes

    async def fetch(self, task_id: TaskId, run_id: RunId | None, directory: str) -> Fetched:
        """Fetch the artifacts of a run, of the latest where none is named, into an empty directory.

        Raises:
            ServiceError: the Queue cannot be asked, has no such run, or answers nonsense; or there is too much.
            OSError: a file cannot be written.
        """
        status = await self._json(f"/task/{task_id}/status")
        definition = await self._json(f"/task/{task_id}")
        try:
            runs = status["status"]["runs"]
            number = RunId(len(runs) - 1 if run_id is None else run_id)
            run = next(each for each in runs if each["runId"] == number)
            group, worker = run.get("workerGroup"), run.get("workerId")
            held = WorkerIdentity(parse_definition(definition).pool, group, worker) if worker else None
            state = str(run["state"])
        except StopIteration:
            raise ServiceError(f"the Queue knows no run {run_id} of the task {task_id}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceError(f"the Queue's answer about {task_id} cannot be read: {error}") from error
        names = await self._names(task_id, number)
        missing = await self._fetch_all(task_id, number, names, Path(directory))
        return Fetched(task_id, number, state, held, definition, missing)

    async def _names(self, task_id: TaskId, run_id: RunId) -> list[ArtifactName]:
        names: list[ArtifactName] = []
        token = ""
        while True:
            page = await self._json(f"/task/{task_id}/runs/{int(run_id)}/artifacts{token}")
            try:
                names += [ArtifactName(each["name"]) for each in page["artifacts"]]
                following = page.get("continuationToken")
            except (KeyError, TypeError, ValueError) as error:
                raise ServiceError(f"the Queue's list of artifacts cannot be read: {error}") from error
            if len(names) > self._limits.artifacts:
                raise ServiceError(f"the run has more than {self._limits.artifacts} artifacts")
            if not following:
                return names
            token = f"?continuationToken={quote(str(following), safe='')}"

    async def _fetch_all(
        self, task_id: TaskId, run_id: RunId, names: list[ArtifactName], directory: Path
    ) -> tuple[str, ...]:
        turn = asyncio.Semaphore(self._limits.at_once)
        missing: list[str] = []

        async def one(name: ArtifactName) -> None:
            async with turn:
                address = f"{self._queue}/task/{task_id}/runs/{int(run_id)}/artifacts/{quote(name, safe='/')}"
                why = await self._file(address, name, directory / name)
                if why:
                    missing.append(f"{name}: {why}")

        try:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(one(name))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return tuple(sorted(missing))

    async def _file(self, address: str, name: ArtifactName, path: Path) -> str:
        """Write one artifact; say why there is none, where that is so."""
        for pause in (*PAUSES_SECONDS, None):
            try:
                async with self._open(address) as answer:
                    if answer.status in _NONE_THERE:
                        return f"the answer is {answer.status}"
                    if answer.status not in _AGAIN:
                        answer.raise_for_status()
                        await self._write(answer, path)
                        return ""
                    problem = str(answer.status)
            except aiohttp.ClientResponseError as error:
                raise ServiceError(f"{name}: the answer is {error.status}") from error
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = type(error).__name__
            if pause is not None:
                await self._clock.sleep(pause)
        raise ServiceError(f"{name}: cannot be fetched: {problem}")

    @asynccontextmanager
    async def _open(self, address: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, and follow to the storage, wherever that is: what comes is judged by its signed digest."""
        for _ in range(_REDIRECTS):
            # `encoded`: a presigned URL is signed as it is written.
            async with self._session.get(URL(address, encoded=True), allow_redirects=False) as answer:
                location = answer.headers.get("Location")
                if answer.status not in _ELSEWHERE or location is None:
                    yield answer
                    return
                address = str(answer.url.join(URL(location, encoded=True)))
        raise ServiceError(f"an artifact is behind more than {_REDIRECTS} redirects")

    async def _write(self, answer: aiohttp.ClientResponse, path: Path) -> None:
        sink = _Sink(path)
        try:
            await in_thread(sink.open)
            async for block in answer.content.iter_chunked(_BLOCK_BYTES):
                self._left -= len(block)
                if self._left < 0:
                    raise ServiceError(f"the artifacts have more than {self._limits.total_bytes} bytes")
                await in_thread(partial(sink.write, block))
        finally:
            sink.close()

    async def _json(self, path: str) -> dict[str, Any]:
        for pause in (*PAUSES_SECONDS, None):
            try:
                async with self._session.get(URL(self._queue + path, encoded=True), allow_redirects=False) as answer:
                    if answer.status not in _AGAIN:
                        answer.raise_for_status()
                        document = json.loads(await answer.read())
                        if not isinstance(document, dict):
                            raise ServiceError("the Queue answers with something else than an object")
                        return document
                    problem = str(answer.status)
            except aiohttp.ClientResponseError as error:
                raise ServiceError(f"the Queue answers {error.status} to GET {path.partition('?')[0]}") from error
            except ValueError as error:
                raise ServiceError("the Queue's answer is no JSON; is the root URL a Taskcluster's?") from error
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = type(error).__name__
            if pause is not None:
                await self._clock.sleep(pause)
        raise ServiceError(f"the Queue cannot be reached: {problem}")


class _Sink:
    """A file that is written by threads, and closed even where the one that opens it is left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def open(self, _: object) -> None:
        """Make the file, and the directories above it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("wb")

    def write(self, block: bytes, _: object) -> None:
        """Write the next bytes."""
        assert self._file is not None
        self._file.write(block)

    def close(self) -> None:
        """Close it, if it was ever opened."""
        if self._file is not None:
            self._file.close()
