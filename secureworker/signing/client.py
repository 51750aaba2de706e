"""The worker's side of the signer: the ports `Signer` and `AuditLog` over a UNIX socket, and a child at its end.

The worker never holds the key. When the other end is gone, every request fails with a HostError, and the worker
claims nothing more.
"""

import asyncio
import base64
import binascii
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from secureworker.core.audit import AuditRecord, record_as_json
from secureworker.core.checkpoint import parse_checkpoint
from secureworker.core.errors import AuditEnded, AuditError, BadPayload, HostError, KeyUnusable, SignerLost
from secureworker.core.happening import Appended
from secureworker.core.ids import ArtifactName, Sha256, WorkerIdentity
from secureworker.ports import SignedFile, Statement
from secureworker.signing import wire
from secureworker.signing.publickeys import PublicKey, parse_public_key
from secureworker.signing.wire import BadFrame

logger = logging.getLogger(__name__)

START_SECONDS: Final = 60.0
"""For the first answer: an audit log of a million records is replayed before it."""
ANSWER_SECONDS: Final = 30.0
END_SECONDS: Final = 5.0
_PASSED_ON: Final = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "CREDENTIALS_DIRECTORY"}
    # Where PKCS#11 modules find their settings: SoftHSM, Kryoptic, TPM 2.0, YubiHSM, Luna, Utimaco, nShield.
    | {"SOFTHSM2_CONF", "KRYOPTIC_CONF", "TPM2_PKCS11_STORE", "YUBIHSM_PKCS11_CONF"}
    | {"ChrystokiConfigurationPath", "CS_PKCS11_R3_CFG", "NFAST_HOME"}
)
"""All that a signer of our own gets of the worker's environment. Who needs more starts it as a unit of its own."""


class SignerClient:
    """Asks a signer. Safe to call from many tasks: requests go one after the other."""

    def __init__(
        self,
        channel: socket.socket,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        grown: Callable[[Appended], None] = lambda _: None,
    ) -> None:
        """Take the conversation, and whom to tell what the audit log says of itself after each record."""
        self._channel = channel
        self._grown = grown
        self._answer_seconds = answer_seconds
        self._channel.settimeout(answer_seconds)
        self._lock = threading.Lock()
        self._gone = ""
        self.public_key: PublicKey
        """Of the signer; known once `hello` was answered."""
        self.version = ""
        self.pid = 0

    async def hello(self, worker: WorkerIdentity) -> None:
        """Meet the signer, and see that it is this worker's.

        Raises:
            HostError: it is another worker's, of another version, or not to be reached; or it says why it cannot start.
        """
        self._channel.settimeout(START_SECONDS)
        told = await self._ask({"request": "hello", "protocol": wire.PROTOCOL})
        self._channel.settimeout(self._answer_seconds)
        try:
            self.version, self.pid, public, whose = wire.exactly(told, "version", "pid", "publicKey", "worker")
            self.public_key = parse_public_key(public)
            signs_for = wire.parse_worker(whose)
        except (ValueError, TypeError, AttributeError) as error:
            raise HostError(f"what answers as the signer is none: {error}") from error
        if signs_for != worker:
            raise HostError(f"the signer is that of {signs_for}, and this worker is {worker}; correct one of them")

    async def sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        """See `ports.Signer`."""
        # The whole of it in a thread: a definition of 1 MB, or 10,000 artifacts, take some 50 ms to write.
        return await asyncio.to_thread(self._sign, statement)

    def _sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        told = self._exchange({"request": "sign", "statement": wire.statement_as_json(statement)})
        try:
            (files,) = wire.exactly(told, "files")
            return tuple(
                SignedFile(ArtifactName(name), base64.b64decode(content, validate=True), content_type)
                for name, content, content_type in files
            )
        except (ValueError, TypeError, binascii.Error) as error:
            raise HostError(f"the signer's answer is none: {error}") from error

    async def append(self, record: AuditRecord) -> None:
        """See `ports.AuditLog`."""
        told = await self._ask({"request": "record", "record": record_as_json(record)})
        self._tell_growth(told.get("checkpoint"))

    async def check(self) -> None:
        """See `ports.AuditLog`."""
        await self._ask({"request": "check"})

    def _tell_growth(self, note: object) -> None:
        """Pass on what is only looked at: the record is written, whatever a signer says of its log beside that."""
        try:
            checkpoint = parse_checkpoint(str(note).partition("\n\n")[0].encode() + b"\n")
        except ValueError as error:
            logger.debug("what the signer says of its log cannot be shown: %s", error)
            return
        root = Sha256(checkpoint.root.hex())
        self._grown(Appended(checkpoint.origin, checkpoint.size, root, str(note)))

    async def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        # A cancelled caller leaves the thread to its end: requests and answers stay in step.
        return await asyncio.to_thread(self._exchange, message)

    def _exchange(self, message: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            if self._gone:
                raise SignerLost(self._gone)
            try:
                wire.send(self._channel, message)
                told = wire.receive(self._channel)
            except ConnectionError as error:
                raise self._lose("the signer is gone; nothing can be signed") from error
            except (BadFrame, OSError) as error:
                raise self._lose(f"the signer does not answer: {error}; nothing can be signed") from error
            except (RecursionError, ValueError) as error:
                # Nothing was sent: the message could not be written.
                reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
                raise BadPayload((f"the task's definition cannot be signed: {reason}",)) from None
            if told is None:
                raise self._lose("the signer is gone; nothing can be signed")
        if "error" in told:
            raise _error(told)
        return told

    def _lose(self, why: str) -> HostError:
        self._gone = why
        self._channel.close()
        return SignerLost(why)

    def close(self) -> None:
        """End the conversation. A signer that is our child ends too."""
        with self._lock:
            self._lose("the signer was told to end")


def _error(told: Mapping[str, Any]) -> Exception:
    reasons = tuple(map(str, told.get("reasons", ())))
    match told["error"]:
        case "payload":
            return BadPayload(reasons)
        case "audit":
            return AuditError("; ".join(reasons))
        case "audit-ended":
            return AuditEnded("; ".join(reasons))
        case "key":
            return KeyUnusable("; ".join(reasons))
        case _:
            return HostError("; ".join(reasons))


def child_settings(
    worker: WorkerIdentity,
    key: str,
    audit_log: str,
    *,
    root_url: str,
    user: str | None = None,
    retired_keys: tuple[PublicKey, ...] = (),
) -> Mapping[str, Any]:
    """Give the settings with which a worker starts a signer of its own."""
    settings: dict[str, Any] = {
        "version": 1,
        "worker-pool": str(worker.pool),
        "worker-group": worker.worker_group,
        "worker-id": worker.worker_id,
        "root-url": root_url,
        "key": key,
        "retired-keys": [one.base64 for one in retired_keys],
        "audit-log": audit_log,
    }
    return settings if user is None else {**settings, "user": user}


@asynccontextmanager
async def connected_signer(
    path: str, worker: WorkerIdentity, *, grown: Callable[[Appended], None] = lambda _: None
) -> AsyncIterator[SignerClient]:
    """Use the signer that listens at `path`, a unit of its own.

    Args:
        path: of its socket.
        worker: who this worker is.
        grown: told what the audit log says of itself, after each record.

    Raises:
        HostError: there is none, or it is another worker's.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        channel.connect(path)
    except OSError as error:
        channel.close()
        raise HostError(f"no signer answers at {path}: {error.strerror}; start it: secureworker signer") from error
    client = SignerClient(channel, grown=grown)
    try:
        await client.hello(worker)
        yield client
    finally:
        client.close()


@asynccontextmanager
async def child_signer(
    settings: Mapping[str, Any],
    worker: WorkerIdentity,
    *,
    log_format: str = "human",
    grown: Callable[[Appended], None] = lambda _: None,
) -> AsyncIterator[SignerClient]:
    """Start a signer of our own, which ends when we do.

    Args:
        settings: what its `--config` would hold.
        worker: who this worker is.
        log_format: of what it logs to our standard error.
        grown: told what the audit log says of itself, after each record.

    Raises:
        HostError: it does not start; says why.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    client = SignerClient(ours, grown=grown)
    try:
        with its:
            child = await asyncio.to_thread(_start, settings, its, log_format)
        try:
            await client.hello(worker)
            logger.info("the signer is process %d, and signs with %s", client.pid, client.public_key.fingerprint)
            yield client
        finally:
            client.close()
            await asyncio.to_thread(_end, child)
    finally:
        client.close()


def _start(settings: Mapping[str, Any], channel: socket.socket, log_format: str) -> "subprocess.Popen[bytes]":
    config = os.memfd_create("signer.json")
    try:
        os.write(config, json.dumps(settings).encode())
        os.lseek(config, 0, os.SEEK_SET)
        fds = ("--config-fd", str(config), "--channel-fd", str(channel.fileno()))
        return subprocess.Popen(
            # -P: of what lies where the worker was started, nothing is imported.
            [sys.executable, "-P", "-m", "secureworker", "signer", *fds, "--log-format", log_format],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(config, channel.fileno()),
            # Of its own session: what a terminal sends to the worker is not for it.
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name in _PASSED_ON},
        )
    finally:
        os.close(config)


def _end(child: "subprocess.Popen[bytes]") -> None:
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        logger.warning("the signer, process %d, did not end and is killed", child.pid)
        child.kill()
        child.wait()
