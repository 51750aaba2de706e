"""What happens to a simulated worker: one seed decides all of it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import final

from secureworker.core.errors import (
    AccessDenied,
    AuditEnded,
    AuditError,
    BadArtifact,
    BadPayload,
    Defect,
    HostError,
    KeyUnusable,
    SandboxError,
    ServiceError,
    SignerLost,
    Stop,
    StopReason,
)
from secureworker.testing import Failures

LONGEST_CALL_SECONDS = 90.0
"""Of one request with its answer, all retries of an adapter included."""
_STEPS = 120
"""Moments of a usual scenario: what comes at a certain one comes at one of these."""


@final
class Fate:
    """Draws from a seed, in the order in which things happen; remembers them for who wants to read the story."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.story: list[str] = []
        self._steps = 0
        self._awaiting: dict[int, list[Callable[[], None]]] = {}
        draw = self.random
        self.trouble = draw.choice((0.0, 0.0, 0.02, 0.1, 0.3))
        """How often a request fails."""
        self.breakage = draw.choice((0.0, 0.0, 0.0, 0.01, 0.05))
        """How often something on the host fails."""
        self._slowness = draw.choice((0.02, 0.3, 3.0))
        self._outage = (0.0, 0.0)
        if draw.random() < 0.25:
            begins = draw.uniform(0, 600)
            self._outage = (begins, begins + draw.choice((20.0, 120.0, 900.0, 2500.0)))
            self.tell(f"the network is cut from {self._outage[0]:.1f} to {self._outage[1]:.1f}")

    @staticmethod
    def now() -> float:
        """Give the true time: seconds since the scenario began."""
        return asyncio.get_running_loop().time()

    def tell(self, what: str) -> None:
        """Add to the story."""
        try:
            when = self.now()
        except RuntimeError:
            when = 0.0
        self.story.append(f"{when:10.3f}  {what}")

    def step(self, what: str) -> None:
        """Pass a moment at which something may come between."""
        self.tell(what)
        self._steps += 1
        for happening in self._awaiting.pop(self._steps, ()):
            happening()

    def at_some_step(self, happening: Callable[[], None]) -> None:
        """Let it come at a moment: so the short ones, as between upload and report, are met as often as the long."""
        self._awaiting.setdefault(self.random.randint(1, _STEPS), []).append(happening)

    def delay(self) -> float:
        """Draw how long something small takes."""
        return self.random.expovariate(1 / self._slowness) if self.random.random() < 0.7 else 0.0

    @asynccontextmanager
    async def request(self, what: str, *, answers: tuple[Callable[[], Exception], ...] = ()) -> AsyncIterator[None]:
        """Send a request, whose effect is the body, and bring its answer home; each may fail, or take its time.

        Cancelled on its way it may arrive all the same.

        Args:
            what: for the story.
            answers: errors that it may be answered with, beside those that any request may.
        """
        draw = self.random
        out, back = min(self.delay(), 60.0), min(self.delay(), 30.0)
        cut = self._outage[0] <= self.now() < self._outage[1]
        error: Exception | None = None
        if cut or draw.random() < self.trouble:
            out = draw.uniform(0, 60.0)
            error = ServiceError("503") if cut else draw.choice((*_ANSWERS, *answers))()
        lost = draw.random() < self.trouble / 2
        arrives_anyway = draw.random() < 0.5
        self.step(f"{what} begins")
        cancelled: asyncio.CancelledError | None = None
        try:
            await asyncio.sleep(out)
        except asyncio.CancelledError as error_here:
            self.tell(f"{what} is cancelled, and {'arrives' if arrives_anyway and not error else 'is gone'}")
            if error or not arrives_anyway:
                raise
            cancelled = error_here
        if error:
            self.step(f"{what} fails: {type(error).__name__}: {error}")
            raise error
        try:
            yield
        finally:
            if cancelled:
                raise cancelled
        self.step(f"{what} has arrived")
        await asyncio.sleep(back)
        if lost:
            self.step(f"{what}: its answer is lost")
            raise ServiceError("the connection was reset")


_ANSWERS: tuple[Callable[[], Exception], ...] = (
    lambda: ServiceError("500"),
    lambda: ServiceError("503"),
    lambda: ServiceError("429"),
    lambda: AccessDenied("401"),
)


def not_found() -> Exception:
    """Answer 404, as the adapter translates it."""
    return Stop(StopReason.CLAIM_LOST, "404")


def bad_request() -> Exception:
    """Answer 400, as the adapter translates it."""
    return Defect("400")


def _unforeseen() -> Exception:
    return RuntimeError("nobody thought of this")


_OF_ANY: tuple[Callable[[], Exception], ...] = (lambda: HostError("the disk is full"), _unforeseen)
_OF_PORTS: dict[str, tuple[Callable[[], Exception], ...]] = {
    "sandbox": (lambda: SandboxError("no container"),),
    "outputs": (lambda: BadArtifact("a link", ("public/link",)), lambda: BadArtifact("a device", ("public/../x",))),
    "signer": (lambda: KeyUnusable("no key"), lambda: ServiceError("the signer does not answer")),
    "secrets": (lambda: ServiceError("503"),),
    "inputs": (lambda: ServiceError("503"), lambda: BadPayload(("an input is not there",))),
    "audit": (
        lambda: AuditError("read-only"),
        lambda: AuditEnded("takes no more records"),
        lambda: SignerLost("the signer is gone"),
    ),
}


class Chances(Failures):
    """Failures that come by chance."""

    def __init__(self, fate: Fate, port: str) -> None:
        super().__init__()
        self._fate = fate
        self._port = port
        # A log that raises what ports do not promise is another program's bug; what it promises is trouble enough.
        self._errors = _OF_PORTS["audit"] if port == "audit" else (*_OF_ANY, *_OF_PORTS.get(port, ()))

    def strike(self, method: str) -> None:
        """Raise, or do not."""
        self._fate.step(f"{self._port}.{method}")
        if self._fate.random.random() < self._fate.breakage:
            error = self._fate.random.choice(self._errors)()
            self._fate.tell(f"{self._port}.{method} fails: {type(error).__name__}: {error}")
            raise error
        super().strike(method)
