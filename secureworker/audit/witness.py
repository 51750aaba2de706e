"""Showing a log's checkpoints to a witness, and keeping what it signs; apart from the signer, which has no network.

It reads the log, holds no key, and can break nothing: what it stores is checked here against the witness' key, and by
whoever relies on it again. A witness that cannot be reached is a ServiceError. One that has seen another log than this
is an AuditError: either the log was cut or written anew, or somebody else signs one of its name.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from secureworker.audit import shards
from secureworker.audit.place import open_existing
from secureworker.core.checkpoint import MAX_NOTE_BYTES, BadNote, Checkpoint, parse_checkpoint
from secureworker.core.errors import AuditError, ServiceError
from secureworker.core.merkle import Tree, consistency_proof, leaf_hash
from secureworker.core.witness import WitnessKey, check_cosigned, read_conflict, with_cosignature, write_request
from secureworker.host.http import HttpLimits

LIMITS: Final = HttpLimits(
    connect_seconds=10, stall_seconds=10, total_seconds=30, answer_bytes=MAX_NOTE_BYTES, connections=1
)
_OK, _CONFLICT = 200, 409
_REFUSED: Final = {
    400: "it does not take the request",
    403: "it does not know this log's key",
    404: "it does not know this log; have it configured for this origin",
    422: "it does not take the proof that the log has grown from what it saw",
}
_NEW: Final = "new"
_ATTEMPTS: Final = 3
"""With the size that we know, with the one that it says, and once more where another push came between."""


@dataclass(slots=True)
class Shard:
    """A shard as far as it was read."""

    number: int
    leaves: list[bytes] = field(default_factory=list)
    tree: Tree = field(default_factory=Tree)
    end: int = 0

    def read(self, place: int) -> bytes:
        """Read on up to the checkpoint that is there; give it.

        Raises:
            AuditError: the records do not come to it.
        """
        note = shards.read_checkpoint(place, self.number)
        checkpoint = checkpoint_of(note)
        tree, leaves = self.tree, []
        with shards.open_records(place, self.number) as file:
            file.seek(self.end)
            for line in shards.lines(file, checkpoint.size - tree.size, checkpoint.origin):
                leaves.append(leaf_hash(line[:-1]))
                tree = tree.grow(leaves[-1])
            end = file.tell()
        if (tree.size, tree.root) != (checkpoint.size, checkpoint.root):
            raise AuditError(
                f"the audit log was changed: the records of {checkpoint.origin} do not come to its checkpoint"
            )
        self.leaves += leaves
        self.tree, self.end = tree, end
        return note


def checkpoint_of(note: bytes) -> Checkpoint:
    """Read the text of a signed note, believing nobody's signature.

    Raises:
        AuditError: it is none.
    """
    try:
        return parse_checkpoint(note.rpartition(b"\n\n")[0] + b"\n")
    except BadNote as error:
        raise AuditError(f"a checkpoint of the audit log is none: {error}") from error


class Store:
    """Where cosigned checkpoints are kept: a directory, with the newest of each shard under the log's own names."""

    def __init__(self, directory: str, witness: WitnessKey) -> None:
        self._witness = witness
        try:
            os.makedirs(directory, mode=0o755, exist_ok=True)
            self._place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise AuditError(f"cosigned checkpoints cannot be kept in {directory}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._place)

    def newest(self, shard: int, origin: str) -> bytes:
        """Give the newest cosigned checkpoint of a shard; empty where there is none that is its, and the witness'."""
        try:
            note = shards.read_checkpoint(self._place, shard)
            check_cosigned(note, self._witness)
            return note if checkpoint_of(note).origin == origin else b""
        except (AuditError, BadNote):
            return b""

    def keep(self, shard: int, note: bytes) -> None:
        """Put a cosigned checkpoint in the place of the one before; it is on disk when this returns.

        Raises:
            AuditError: it is not.
        """
        try:
            descriptor = shards.open_file(_NEW, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, self._place)
            with os.fdopen(descriptor, "wb") as file:
                file.write(note)
                file.flush()
                # The signer reads it, who is another user; there is nothing secret in it.
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            os.rename(_NEW, shards.checkpoint_file(shard), src_dir_fd=self._place, dst_dir_fd=self._place)
            os.fsync(self._place)
        except OSError as error:
            raise AuditError(f"a cosigned checkpoint cannot be kept: {error.strerror}") from error


class Witness:
    """A witness at the other end of HTTP."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: WitnessKey) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/add-checkpoint"
        self.key = key

    async def ask(self, old_size: int, proof: Sequence[bytes], note: bytes) -> bytes | int:
        """Ask for a cosignature; give the cosigned checkpoint, or the size that the witness knows instead.

        Raises:
            ServiceError: it cannot be reached, or its answer is none.
            AuditError: it refuses.
        """
        name = self.key.name
        try:
            # Redirects are not followed: a witness is an address that somebody has looked at.
            async with self._session.post(
                self._url, data=write_request(old_size, proof, note), allow_redirects=False
            ) as answer:
                status, body = answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServiceError(f"the witness {name} cannot be asked: {type(error).__name__}") from error
        try:
            if status == _CONFLICT:
                return read_conflict(body)
            if status == _OK:
                return with_cosignature(note, body, self.key)
        except BadNote as error:
            raise ServiceError(f"the witness {name} gives no answer that counts: {error}") from error
        if status in _REFUSED:
            raise AuditError(f"the witness {name} refuses {checkpoint_of(note).origin}: {_REFUSED[status]}")
        raise ServiceError(f"the witness {name} answers with {status}")


@dataclass(slots=True)
class Pusher:
    """Shows a log to a witness, as often as it is told to."""

    directory: str
    witness: Witness
    store: Store
    _shards: dict[int, Shard] = field(default_factory=dict)

    async def push(self) -> list[Checkpoint]:
        """Have every shard cosigned as it is now; give the checkpoints that were not cosigned before.

        Raises:
            ServiceError: the witness cannot be asked; what was cosigned before that is kept.
            AuditError: the log cannot be read, or the witness has seen another one.
        """
        done = []
        place = await asyncio.to_thread(open_existing, self.directory)
        try:
            numbers = shards.list_shards(place)
            for number in numbers:
                checkpoint = await self._push_shard(place, number)
                done += [] if checkpoint is None else [checkpoint]
                if number != numbers[-1]:
                    # Nothing more comes to it; its 100,000 hashes are not kept for that.
                    self._shards.pop(number, None)
        finally:
            os.close(place)
        return done

    async def _push_shard(self, place: int, number: int) -> Checkpoint | None:
        """Have one shard cosigned.

        1. Nothing is asked for what is cosigned already, or is empty: of an empty log there is nothing to say.
        2. The witness is asked with the size that it signed last, and the proof that the log has grown from there.
        3. Where it knows another size, with that one: our own store may have been lost.
        4. A size that this log never had, or the same with another root, is another log.
        """
        # 1.
        checkpoint = checkpoint_of(await asyncio.to_thread(shards.read_checkpoint, place, number))
        kept = await asyncio.to_thread(self.store.newest, number, checkpoint.origin)
        if not checkpoint.size or (kept and checkpoint_of(kept) == checkpoint):
            return None
        shard = self._shards.setdefault(number, Shard(number))
        note = await asyncio.to_thread(shard.read, place)
        checkpoint = checkpoint_of(note)
        # 2.
        old_size = checkpoint_of(kept).size if kept else 0
        for _ in range(_ATTEMPTS):
            answer = await self._ask(shard, old_size, note)
            if isinstance(answer, bytes):
                await asyncio.to_thread(self.store.keep, number, answer)
                return checkpoint
            # 3. and 4.
            if answer > checkpoint.size or answer == old_size:
                raise AuditError(
                    f"the witness {self.witness.key.name} has seen {answer} records of {checkpoint.origin}, which has "
                    f"{checkpoint.size} here: the log was cut, or is not the one that it knows; find out which"
                )
            old_size = answer
        raise ServiceError(f"the witness {self.witness.key.name} says now one size, and now another")

    async def _ask(self, shard: Shard, old_size: int, note: bytes) -> bytes | int:
        if old_size > shard.tree.size:
            raise AuditError(
                f"{old_size} records were cosigned, and the log has {shard.tree.size}: it was cut, or replaced"
            )
        proof = await asyncio.to_thread(consistency_proof, shard.leaves, old_size) if old_size else ()
        return await self.witness.ask(old_size, proof, note)
