"""Other tasks and their artifacts, in memory."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from secureworker.core.chain import Upstream
from secureworker.core.errors import BadPayload
from secureworker.core.ids import TaskId
from secureworker.core.inputs import Input, Received
from secureworker.core.origin import TraceRule
from secureworker.core.schemas import CompiledSchema
from secureworker.core.trace import Ancestry
from secureworker.core.verification import Checks
from secureworker.ports import Workspace
from secureworker.testing.time import Failures, FakeClock


@dataclass
class FakeInputs:
    """Has the facts and the artifacts that it is given. Places nothing, and says what it would have placed."""

    clock: FakeClock
    facts: dict[TaskId, Upstream] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    """By `<task id>/<artifact name>`."""
    seconds: float = 0.1
    failures: Failures = field(default_factory=Failures)
    fetched: list[Input] = field(default_factory=list)
    ancestry: Ancestry = field(default_factory=Ancestry)

    async def gather(self, run: Any, tasks: tuple[TaskId, ...]) -> tuple[Upstream, ...]:  # noqa: ARG002 - the port's
        """Give the facts; of a task that is not there, that it is not."""
        await self.clock.sleep(self.seconds)
        self.failures.strike("gather")
        return tuple(self.facts.get(task_id, Upstream(task_id, None)) for task_id in tasks)

    async def trace(self, run: Any, tasks: tuple[TaskId, ...], rule: TraceRule) -> Ancestry:  # noqa: ARG002 - the port's
        """Give what it was given."""
        await self.clock.sleep(self.seconds)
        self.failures.strike("trace")
        return self.ancestry

    async def fetch(
        self,
        run: Any,  # noqa: ARG002 - the port's
        inputs: tuple[Input, ...],
        max_bytes: int,
        workspace: Workspace,  # noqa: ARG002 - the port's
    ) -> Received:
        """Compare digests and sizes."""
        await self.clock.sleep(self.seconds)
        self.failures.strike("fetch")
        absent: dict[Input, str] = {}
        contents = {wanted: self.contents.get(str(wanted)) for wanted in inputs}
        if sum(len(content) for content in contents.values() if content is not None) > max_bytes:
            raise BadPayload(("the inputs are too large; the rule is upstream.max-size",))
        for wanted, content in contents.items():
            why = _why_not(wanted, content)
            if why and not wanted.optional:
                raise BadPayload((f"the input {wanted} cannot be used: {why}",))
            if why:
                absent[wanted] = why
        placed = tuple(wanted for wanted in inputs if wanted not in absent)
        self.fetched.extend(placed)
        return Received(placed, tuple(absent.items()), sum(len(contents[wanted] or b"") for wanted in placed))


def _why_not(wanted: Input, content: bytes | None) -> str:
    if content is None:
        return "it is not there"
    found = hashlib.sha256(content).hexdigest()
    return "" if found == wanted.sha256 else f"it has the sha256 {found}, and {wanted.sha256} was signed"


def fake_signature(raw: bytes, content: bytes) -> bytes:
    """Give the signature that `FAKE_CHECKS` take for one by the key `raw`. Anybody can make it."""
    return hashlib.sha512(raw + content).digest()


def _verifies(raw: bytes, signature: bytes, content: bytes) -> bool:
    return signature == fake_signature(raw, content)


FAKE_CHECKS = Checks(_verifies, CompiledSchema({}))
"""Checks without cryptography; every provenance has the right form to them."""
