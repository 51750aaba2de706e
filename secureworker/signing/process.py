"""The signer's loop: few clients, one request at a time, from a table of what may be asked. All else is refused.

The model is OpenSSH's privilege separation: the side that holds the key knows a handful of typed requests, answers
them in their order, and believes nothing that it is told about who asks.
"""

import base64
import logging
import os
import selectors
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol, TypeAlias

from secureworker import __version__
from secureworker.core.audit import SIGNERS_OWN, AuditRecord, BadRecord, Ending, Event, parse_record
from secureworker.core.checkpoint import InclusionProof, write_proof
from secureworker.core.errors import AuditEnded, AuditError, BadPayload, HostError, KeyUnusable, SecureworkerError
from secureworker.core.ids import ArtifactName
from secureworker.ports import SignedFile
from secureworker.signing import wire
from secureworker.signing.desk import Bounds, Desk, SignedRuns
from secureworker.signing.publickeys import Key
from secureworker.signing.wire import BadFrame

logger = logging.getLogger(__name__)

MAX_CLIENTS: Final = 8
STALL_SECONDS: Final = 10.0
"""How long a client may take to send a message, or to take an answer, while the others wait."""
SMALL_BYTES: Final = 1 << 20
AUDIT_PROOF: Final = ArtifactName("public/audit.tlog-proof")
_UCRED: Final = struct.Struct("3i")  # struct ucred, unix(7)

Answer: TypeAlias = Mapping[str, Any]


class Trail(Protocol):
    """The audit log, as the signer uses it."""

    def write(self, record: AuditRecord, writer: str) -> InclusionProof:
        """Return when the record is kept for good, with the proof of it; raise AuditError where it is not."""

    def check(self) -> None:
        """Raise AuditError where the next record could most likely not be written."""


@dataclass(frozen=True, slots=True)
class Request:
    """An entry of the table of what may be asked."""

    answer: Callable[..., Answer]
    """Given the message's keys but its kind, as keyword arguments."""
    keys: frozenset[str]
    most_bytes: int = SMALL_BYTES


@dataclass(slots=True)
class _Ledger:
    """Writes down what the desk signs, and keeps the last proof for the answer."""

    trail: Trail
    proof: InclusionProof | None = None

    def write(self, record: AuditRecord) -> None:
        self.proof = self.trail.write(record, "signer")


def requests(key: Key, bounds: Bounds, trail: Trail, signed: SignedRuns) -> Mapping[str, Request]:
    """Make the table: everything that a signer can be asked for."""
    ledger = _Ledger(trail)
    desk = Desk(key, bounds, ledger, signed)

    def hello(protocol: object) -> Answer:
        if protocol != wire.PROTOCOL:
            raise HostError(f"the signer speaks protocol {wire.PROTOCOL}; worker and signer must be of one version")
        about = {"version": __version__, "pid": os.getpid(), "publicKey": key.public.base64}
        return {**about, "worker": wire.worker_as_json(bounds.worker)}

    def sign(statement: Any) -> Answer:
        if not isinstance(statement, dict):
            raise BadFrame("a statement is an object")
        files = desk.sign(wire.parse_statement(statement))
        if ledger.proof is not None:
            files = (*files, SignedFile(AUDIT_PROOF, write_proof(ledger.proof), "text/plain; charset=utf-8"))
        return {"files": [[file.name, base64.b64encode(file.content).decode(), file.content_type] for file in files]}

    def record(record: Any) -> Answer:
        parsed = _workers_own(record)
        proof = trail.write(parsed, "worker")
        if parsed.event is Event.POLICY_LOAD and parsed.ending is Ending.OK:
            desk.policy_loaded(dict(parsed.digests)["policy"])
        return {"index": proof.index, "checkpoint": proof.note.decode()}

    def check() -> Answer:
        trail.check()
        return {}

    return {
        "hello": Request(hello, frozenset({"protocol"})),
        "sign": Request(sign, frozenset({"statement"}), wire.MAX_FRAME_BYTES),
        "record": Request(record, frozenset({"record"})),
        "check": Request(check, frozenset()),
    }


def _workers_own(document: Any) -> AuditRecord:
    """Read a record that a worker wants written down; raise BadFrame where it is not a worker's to say."""
    parsed = parse_record(document)
    if parsed.event in SIGNERS_OWN:
        raise BadFrame(f"a record of {parsed.event.value} is the signer's own to write")
    if parsed.event is Event.POLICY_LOAD and "policy" not in dict(parsed.digests):
        raise BadFrame("a policy that is loaded has a digest")
    return parsed


_ERRORS: Final = (
    (AuditEnded, "audit-ended"),
    (AuditError, "audit"),
    (KeyUnusable, "key"),
    (BadPayload, "payload"),
    (HostError, "host"),
)
"""The first that fits."""


def describe_error(error: SecureworkerError) -> Answer:
    """Write an error for the wire."""
    if isinstance(error, BadPayload):
        return {"error": "payload", "reasons": list(error.reasons)}
    kind = next((name for known, name in _ERRORS if isinstance(error, known)), "host")
    return {"error": kind, "reasons": [str(error)]}


def answer(table: Mapping[str, Request], message: dict[str, Any]) -> Answer:
    """Answer one request; what is not in the table, or not in its form, raises BadFrame."""
    request = table.get(str(message.pop("request", "")))
    if request is None or set(message) != request.keys:
        raise BadFrame("this is nothing that a signer can be asked for")
    try:
        return request.answer(**message)
    except BadRecord as error:
        raise BadFrame(str(error)) from error
    except SecureworkerError as error:
        logger.warning("refused: %s", error)
        return describe_error(error)


def peer_of(channel: socket.socket) -> tuple[int, int]:
    """Give the process id and the user id that the kernel says the other side had when it connected."""
    pid, uid, _ = _UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


@dataclass(slots=True)
class Server:
    """Answers clients until it is told to end."""

    table: Mapping[str, Request]
    allowed_uids: frozenset[int]
    listener: socket.socket | None = None
    """None: there is one client, and when it ends, so does the signer."""
    _clients: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def serve(self, first: socket.socket | None = None, *, stop: socket.socket | None = None) -> str:
        """Answer until the only client has ended, or `stop` can be read from; give the reason."""
        with self._clients, ExitStack() as stack:
            stack.callback(self._close)
            if self.listener is not None:
                self._clients.register(self.listener, selectors.EVENT_READ, self._accept)
            if stop is not None:
                self._clients.register(stop, selectors.EVENT_READ, None)
            if first is not None:
                self._admit(first)
            while self.listener is not None or self._channels():
                for ready, _ in self._clients.select():
                    if ready.data is None:
                        return "it was told to end"
                    ready.data(ready.fileobj)
        return "the worker has ended"

    def _channels(self) -> list[socket.socket]:
        entries = self._clients.get_map().values()
        return [
            entry.fileobj
            for entry in entries
            if isinstance(entry.fileobj, socket.socket) and entry.data == self._attend
        ]

    def _close(self) -> None:
        for channel in self._channels():
            channel.close()

    def _accept(self, listener: socket.socket) -> None:
        channel, _ = listener.accept()
        self._admit(channel)

    def _admit(self, channel: socket.socket) -> None:
        pid, uid = peer_of(channel)
        if uid not in self.allowed_uids or len(self._channels()) >= MAX_CLIENTS:
            logger.warning("refused a connection of process %d of uid %d", pid, uid)
            channel.close()
            return
        channel.settimeout(STALL_SECONDS)
        self._clients.register(channel, selectors.EVENT_READ, self._attend)

    def _attend(self, channel: socket.socket) -> None:
        """Answer one request of a client; drop the client where it has ended, or does not keep to the form."""
        try:
            message = wire.receive(channel)
            if message is not None:
                wire.send(channel, answer(self.table, message))
                return
        except BadFrame as error:
            logger.warning("dropped a client: %s", error)
            self._tell(channel, HostError(f"the signer does not take this: {error}"))
        except OSError as error:
            logger.warning("lost a client: %s", error)
        self._clients.unregister(channel)
        channel.close()

    def _tell(self, channel: socket.socket, error: SecureworkerError) -> None:
        try:
            wire.send(channel, describe_error(error))
        except OSError as lost:
            logger.debug("could not tell it: %s", lost)


def listen(path: str, *, mode: int) -> socket.socket:
    """Listen on a UNIX socket, in the place of one that an earlier signer left.

    Raises:
        HostError: it cannot be made there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path) and _is_abandoned(path):
            Path(path).unlink()
        # The mode is that of the moment it is made: there is none at which others could connect.
        mask = os.umask(0o777 & ~mode)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(MAX_CLIENTS)
    except OSError as error:
        listener.close()
        raise HostError(f"the signer cannot listen on {path}: {error.strerror}; is another one running?") from error
    return listener


def _is_abandoned(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


class StopSignals:
    """Turns SIGTERM and SIGINT into something to select on; as a worker's child, leaves them without effect.

    A child ends when its worker does. Signals sent to the whole group must not end it while the worker still has
    things to write down.
    """

    def __init__(self, *, ignore: bool) -> None:
        self._ignore = ignore
        self._stack = ExitStack()

    def __enter__(self) -> socket.socket | None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN if self._ignore else _nothing)
        if self._ignore:
            return None
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            self._stack.enter_context(end)
            end.settimeout(0)
        signal.set_wakeup_fd(writing.fileno())
        self._stack.callback(signal.set_wakeup_fd, -1)
        return reading

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _nothing(_: int, __: FrameType | None) -> None:
    """Let the wakeup descriptor say it."""
