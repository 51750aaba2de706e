"""The composition root of the signer's process: from its settings to a key, a log and a table of requests.

It loads the key, gives up whatever it does not need, replays the audit log, and answers. What it was told by the
worker decides nothing here: all that it checks requests against is in its settings.
"""

import codecs
import contextlib
import logging
import os
import pwd
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from secureworker import __version__
from secureworker.audit.log import Log, LogSettings, LogSigner, open_log
from secureworker.audit.moments import SystemMoments
from secureworker.audit.place import give, open_place
from secureworker.audit.shards import LogKey
from secureworker.audit.watch import Watch
from secureworker.core.audit import AuditRecord, Event, read_record
from secureworker.core.checkpoint import InclusionProof
from secureworker.core.errors import AuditError, HostError, SecureworkerError, SettingsError
from secureworker.core.ids import Sha256, WorkerIdentity, WorkerPool
from secureworker.core.schemas import CompiledSchema
from secureworker.core.witness import parse_vkey
from secureworker.host.confine import (
    Confinement,
    become,
    filter_system_calls,
    keep_memory_private,
    leave_network,
)
from secureworker.host.documents import BadDocument, Document, parse
from secureworker.host.readiness import readiness
from secureworker.host.userns import set_aside
from secureworker.signing import wire
from secureworker.signing.desk import Bounds, SignedRuns
from secureworker.signing.keyuris import OVER_NETWORK, import_for, load_key, scheme_of
from secureworker.signing.process import Server, StopSignals, describe_error, listen, requests
from secureworker.signing.publickeys import Key, PublicKey, parse_public_key

logger = logging.getLogger(__name__)

SIGNER_UID: Final = 1_899_999_999
"""What a signer becomes that root started without saying what: just below the ids that scripts get, and nobody's."""
WITNESS_SECONDS: Final = 900.0
"""How far a witness that is required may be behind, unless it is said otherwise."""
_SIGNATURES: Final = b'"event":"signature"'


@dataclass(frozen=True, slots=True)
class SignerSettings:
    """What an operator, or the worker that starts its own, says of a signer."""

    bounds: Bounds
    key: str
    audit_log: str
    retired: tuple[PublicKey, ...] = ()
    user: str | int | None = None
    socket: str | None = None
    clients: tuple[str | int, ...] = ()
    watch: Watch | None = None
    """Where a witness is required: what sees that it keeps up."""


def read_settings(content: bytes, name: str) -> SignerSettings:
    """Read the settings.

    Raises:
        SettingsError: they cannot be used; all that is wrong with them.
    """
    schema = CompiledSchema(_signer_schema())
    try:
        document = parse(content, name)
    except BadDocument as error:
        raise SettingsError("\n".join(error.problems)) from error
    problems = document.check(schema)
    if problems:
        raise SettingsError("\n".join(document.complain(path, message) for path, message in problems))
    try:
        return _settings(document)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from error


def _signer_schema() -> dict[str, Any]:
    text = files("secureworker").joinpath("_schemas", "signer.schema.json").read_text(encoding="utf-8")
    return dict(parse(text.encode(), "signer.schema.json").value)  # type: ignore[arg-type] # an object: our own file


def _settings(document: Document) -> SignerSettings:
    value = document.value
    assert isinstance(value, dict)
    said: dict[str, Any] = value
    pool = WorkerPool.parse(said["worker-pool"])
    policies = said.get("policies")
    return SignerSettings(
        Bounds(
            WorkerIdentity(pool, said["worker-group"], said["worker-id"]),
            None if policies is None else frozenset(map(Sha256, policies)),
            said.get("root-url"),
        ),
        said["key"],
        said["audit-log"],
        tuple(map(parse_public_key, said.get("retired-keys", ()))),
        said.get("user"),
        said.get("socket"),
        tuple(said.get("clients", ())),
        _watch(said["witness"]) if "witness" in said else None,
    )


def _watch(said: dict[str, Any]) -> Watch:
    key = parse_vkey(said["key"], lambda raw: PublicKey(raw).verifies)
    return Watch(said["store"], key, said.get("seconds", WITNESS_SECONDS))


class _LogTrail:
    """The audit log as the process knows it."""

    def __init__(self, log: Log, watch: Watch | None) -> None:
        self._log = log
        self._watch = watch

    def write(self, record: AuditRecord, writer: str) -> InclusionProof:
        return self._log.append(record, writer)

    def check(self) -> None:
        self._log.check()
        if self._watch is not None:
            self._watch.check(self._log.shard, self._log.origin, self._log.size)


def run(settings: SignerSettings, channel: socket.socket | None) -> None:
    """Be a signer until told to end.

    Args:
        settings: whose, with which key, and where.
        channel: the worker's socket, whose end is ours; None: listen where the settings say.

    Raises:
        HostError: it cannot start. The worker at the other end of `channel` was told why.
    """
    with ExitStack() as stack:
        # Before the system-call filter: no socket can be made behind it.
        manager = stack.enter_context(readiness(os.environ))
        try:
            server, log, stop = _prepare(settings, channel, stack)
        except SecureworkerError as error:
            _tell(channel, error)
            raise
        except Exception as error:
            _tell(channel, HostError(f"the signer cannot start: {type(error).__name__}; its own log says more"))
            raise
        manager.tell()
        reason = server.serve(channel, stop=stop)
        try:
            log.append(AuditRecord(Event.SIGNER_STOP, details=(("reason", reason),)), "signer")
        except AuditError as error:
            logger.warning("the end could not be written down: %s", error)


def _tell(channel: socket.socket | None, error: SecureworkerError) -> None:
    if channel is not None:
        with contextlib.suppress(OSError):
            wire.send(channel, describe_error(error))


def _prepare(
    settings: SignerSettings, channel: socket.socket | None, stack: ExitStack
) -> tuple[Server, Log, socket.socket | None]:
    """Get everything that needs rights, give the rights up, and only then read what others could have written.

    1. Sockets and directory, as who we were started.
    2. The key: before we become another user, unless that user's own.
    3. No network, no rights, no core, no system calls beyond what is needed.
    4. The log, replayed: what it says was signed is known from now on.
    5. That we are here is the first thing that is written down.
    """
    if channel is not None and scheme_of(settings.key) in OVER_NETWORK:
        # Its token would be the worker's as well, and who has the token has bytes signed, whatever they are.
        raise SettingsError(
            "a key in a Vault needs a signer of its own (secureworker signer --config), not the worker's"
        )
    # 1.
    started_as = os.geteuid()
    stop = stack.enter_context(StopSignals(ignore=channel is not None))
    listener = None
    if channel is None:
        if settings.socket is None:
            raise SettingsError("the settings name no socket: add `socket: /run/secureworker/signer.sock`")
        # Who may ask is the kernel's to say (SO_PEERCRED), not the file's mode.
        listener = stack.enter_context(listen(settings.socket, mode=0o666))
    allowed = frozenset(_user(client)[0] for client in settings.clients) or frozenset({started_as})
    place = open_place(settings.audit_log)
    moments = SystemMoments()
    # Python itself may lie where only who started us can read it: what it loads late is loaded now.
    import_for(settings.key)
    for encoding in ("ascii", "latin-1", "utf-16be"):
        codecs.lookup(encoding)
    # 2. and 3.
    key, confinement = _load_and_confine(settings, place)
    # 4.
    signed = SignedRuns()

    def visit(line: bytes) -> None:
        # Most lines are of other events, and reading one takes 30 us.
        if _SIGNATURES in line:
            signed.learn(read_record(line)[0])

    log = open_log(
        LogSettings(settings.audit_log, settings.bounds.worker, opened=place),
        LogSigner(_log_key(key.public), key.sign, tuple(map(_log_key, settings.retired))),
        moments.now,
        visit,
    )
    stack.enter_context(log)
    # 5.
    details = (
        *(("pid", os.getpid()), ("uid", confinement.uid)),
        *(("version", __version__), ("seccomp", confinement.filtered)),
    )
    log.append(AuditRecord(Event.SIGNER_START, details=details), "signer")
    about = (("scheme", scheme_of(settings.key)), ("fingerprint", key.public.fingerprint))
    log.append(AuditRecord(Event.KEY_LOAD, details=about), "signer")
    logger.debug("confined: %s; %d runs were signed for before", confinement, len(signed))
    server = Server(requests(key, settings.bounds, _LogTrail(log, settings.watch), signed), allowed, listener)
    return server, log, stop


def _log_key(key: PublicKey) -> LogKey:
    return LogKey(key.raw, key.verifies)


def _load_and_confine(settings: SignerSettings, place: int) -> tuple[Key, Confinement]:
    scheme = scheme_of(settings.key)
    over_network = scheme in OVER_NETWORK
    network_left = False if over_network else leave_network()
    user = _target(settings.user, scheme)
    key = None
    if user is not None:
        give(place, *user)
        if settings.user is None:
            # Nobody's id: the key is that of who started us.
            key = load_key(settings.key)
        become(*user)
    if key is None:
        key = load_key(settings.key)
    keep_memory_private()
    return key, Confinement(os.geteuid(), network_left, filter_system_calls(connections=over_network))


def _target(user: str | int | None, scheme: str) -> tuple[int, int] | None:
    """Give the user and group to become; None: stay as we are."""
    if user is None:
        # A token's files are those of who was let at it: root must say whom else.
        uid = set_aside(SIGNER_UID)
        return (uid, uid) if os.geteuid() == 0 and scheme != "pkcs11" else None
    uid, gid = _user(user)
    return None if uid == os.geteuid() else (uid, gid)


def _user(user: str | int) -> tuple[int, int]:
    """Find a user's and group's id.

    Raises:
        SettingsError: there is no such user.
    """
    if isinstance(user, int) or user.isdecimal():
        return int(user), int(user)
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise SettingsError(f"there is no user {user!r} for the signer; make it, or name another") from None
    return entry.pw_uid, entry.pw_gid


def open_channel(descriptor: int) -> socket.socket:
    """Take over the worker's socket.

    Raises:
        HostError: the descriptor is none.
    """
    try:
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise HostError(f"descriptor {descriptor} is no socket: {error.strerror}") from error
