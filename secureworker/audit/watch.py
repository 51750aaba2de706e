"""Whether a witness keeps up with the log: for the signer, which cannot ask it and reads what was stored for it.

This keeps a worker from going on for long while nobody outside sees what it writes down. It does not judge which log
was cosigned: auditors do, and the witness, which signs for no other.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from secureworker.audit import shards
from secureworker.core.checkpoint import BadNote, parse_checkpoint
from secureworker.core.errors import AuditError
from secureworker.core.witness import WitnessKey, check_cosigned


@dataclass(slots=True)
class Watch:
    """What is waited for: the moment at which the log had a size that is not cosigned yet."""

    directory: str
    """Where `audit push` stores what was cosigned. It may be anybody's: what is in it is checked."""
    witness: WitnessKey
    seconds: float
    now: Callable[[], float] = time.monotonic
    _waiting: tuple[str, int, float] | None = None

    def check(self, shard: int, origin: str, size: int) -> None:
        """See that what the log had `seconds` ago is cosigned by now.

        Call it before anything new begins; what is waited for is chosen here, so that a record may be twice `seconds`
        old before its lack is noticed.

        Raises:
            AuditError: it is not.
        """
        cosigned, why = self._cosigned(shard, origin)
        waiting = self._waiting
        if waiting is not None and waiting[0] == origin and cosigned < waiting[1]:
            waited = self.now() - waiting[2]
            if waited > self.seconds:
                raise AuditError(
                    f"the witness {self.witness.name} has signed for {cosigned} records of {origin}, and {waiting[1]} "
                    f"were there {waited:.0f} s ago{why}; see what `secureworker audit push` says"
                )
            return
        self._waiting = (origin, size, self.now()) if cosigned < size else None

    def _cosigned(self, shard: int, origin: str) -> tuple[int, str]:
        """Give how many records of a shard are cosigned, by what is stored, and why what is stored does not count."""
        try:
            place = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            return 0, f" ({self.directory} cannot be read: {error.strerror})"
        try:
            note = shards.read_checkpoint(place, shard)
            check_cosigned(note, self.witness)
            checkpoint = parse_checkpoint(note.rpartition(b"\n\n")[0] + b"\n")
        except (AuditError, BadNote) as error:
            return 0, f" ({error})"
        finally:
            os.close(place)
        return (checkpoint.size, "") if checkpoint.origin == origin else (0, f" (it is stored for {checkpoint.origin})")
