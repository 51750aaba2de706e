"""Measures what the signer takes, which is the audit log's writer too: its ports once more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from secureworker.core.audit import AuditRecord
from secureworker.operation.metrics import Metrics
from secureworker.ports import AuditLog, Clock, SignedFile, Signer, Statement


@asynccontextmanager
async def _measured(metrics: Metrics, clock: Clock, request: str) -> AsyncIterator[None]:
    began = clock.monotonic()
    try:
        yield
    except Exception:
        metrics.signer_failures.labels(request).inc()
        raise
    finally:
        metrics.signer_seconds.labels(request).observe(clock.monotonic() - began)


@dataclass(frozen=True, slots=True)
class TimedSigner:
    """A signer whose answers are timed."""

    signer: Signer
    metrics: Metrics
    clock: Clock

    async def sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        """See `ports.Signer`."""
        async with _measured(self.metrics, self.clock, "sign"):
            return await self.signer.sign(statement)


@dataclass(frozen=True, slots=True)
class TimedAuditLog:
    """An audit log whose answers are timed."""

    audit: AuditLog
    metrics: Metrics
    clock: Clock

    async def append(self, record: AuditRecord) -> None:
        """See `ports.AuditLog`."""
        async with _measured(self.metrics, self.clock, "append"):
            await self.audit.append(record)

    async def check(self) -> None:
        """See `ports.AuditLog`."""
        async with _measured(self.metrics, self.clock, "check"):
            await self.audit.check()
