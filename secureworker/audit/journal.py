"""Checkpoints for the systemd journal, a line each in its native protocol: the host's own log holds ours to them.

The journal is a witness of a lesser kind: it is on the same host, but another process writes it, other people's
programs collect it, and it is often sent away at once.
"""

import base64
import socket
from typing import Final

from secureworker.core.checkpoint import Checkpoint
from secureworker.core.errors import ServiceError

JOURNAL: Final = "/run/systemd/journal/socket"
_INFORMATIONAL: Final = 6  # syslog(3)


class Journal:
    """Where lines are sent; nothing is kept, and nothing waited for."""

    def __init__(self, path: str = JOURNAL) -> None:
        self._path = path

    def tell(self, checkpoint: Checkpoint) -> None:
        """Send one line.

        Raises:
            ServiceError: nobody takes it.
        """
        root = base64.b64encode(checkpoint.root).decode()
        fields = {
            "MESSAGE": f"audit log {checkpoint.origin}: {checkpoint.size} records, root {root}",
            "PRIORITY": _INFORMATIONAL,
            "SYSLOG_IDENTIFIER": "secureworker-audit",
            "SECUREWORKER_LOG": checkpoint.origin,
            "SECUREWORKER_LOG_SIZE": checkpoint.size,
            "SECUREWORKER_LOG_ROOT": root,
        }
        # A value with a newline in it would have another form; an origin has none, for it is one line of a checkpoint.
        message = "".join(f"{name}={value}\n" for name, value in fields.items()).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            # A journal that does not read must not hold up the witness.
            channel.settimeout(0)
            try:
                channel.sendto(message, self._path)
            except OSError as error:
                raise ServiceError(f"the journal at {self._path} takes nothing: {error.strerror}") from error
