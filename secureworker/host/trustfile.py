"""The trust file: from a path to a `Trust`, or to everything that is wrong with it. Also the schemas of statements."""

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Any

from secureworker.core.checkpoint import BadNote, Checkpoint, parse_checkpoint
from secureworker.core.errors import SettingsError
from secureworker.core.ids import WorkerPool
from secureworker.core.schemas import CompiledSchema, Path
from secureworker.core.trust import Implementation, KeyState, Trust, TrustKey, TrustPool, fingerprint
from secureworker.host.documents import MAX_BYTES, BadDocument, parse

_STATEMENT = "provenance.schema.json"
_PARAMETERS = "release-script-parameters.schema.json"


def _schema(name: str) -> dict[str, Any]:
    text = files("secureworker").joinpath("_schemas", name).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def provenance_schema() -> CompiledSchema:
    """Give the schema of provenance statements, compiled once."""
    parameters = _schema(_PARAMETERS)
    statement = _schema(_STATEMENT)
    return CompiledSchema(statement, statement["$id"], {parameters["$id"]: parameters})


@cache
def _trust_schema() -> CompiledSchema:
    return CompiledSchema(_schema("trust.schema.json"))


def load_trust(path: str) -> Trust:
    """Read a trust file: YAML, or JSON where its name ends in `.json`.

    Raises:
        SettingsError: it cannot be used; everything that is wrong, with file and line.
    """
    try:
        with FilePath(path).open("rb") as file:
            content = file.read(4 * MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"the trust file {path} cannot be read: {error.strerror}") from error
    try:
        return parse_trust(content, path)
    except BadDocument as error:
        raise SettingsError(str(error)) from error


def parse_trust(content: bytes, name: str) -> Trust:
    """Read the bytes of a trust file: held against the schema, then against what a schema cannot say.

    Raises:
        BadDocument: it is no trust file.
    """
    document = parse(content, name)
    problems = document.check(_trust_schema())
    if problems:
        raise BadDocument(tuple(document.complain(path, message) for path, message in problems))
    assert isinstance(document.value, dict)
    value: dict[str, Any] = document.value
    pools, found = read_pools(value["worker-pools"], ("worker-pools",))
    if found:
        raise BadDocument(tuple(document.complain(path, message) for path, message in found))
    return Trust(pools, value.get("root-url", ""))


def read_pools(
    written: Mapping[str, dict[str, Any]], at: Path
) -> tuple[tuple[TrustPool, ...], tuple[tuple[Path, str], ...]]:
    """Read `worker-pools`, of a trust file or a policy, that are as the schema says.

    Args:
        written: by the names of pools.
        at: where it stands.

    Returns:
        the pools, and everything that is wrong with them, with its place.
    """
    found: list[tuple[Path, str]] = []
    pools = tuple(_pool(name, pool, (*at, name, "keys"), found) for name, pool in written.items())
    return pools, (*found, *_contradictions(pools, at))


def _pool(name: str, written: dict[str, Any], at: Path, found: list[tuple[Path, str]]) -> TrustPool:
    keys = tuple(_key((*at, index), key, found) for index, key in enumerate(written["keys"]))
    seen: set[bytes] = set()
    for index, key in enumerate(keys):
        if key.raw in seen:
            found.append(((*at, index), "this key is here twice; keep one"))
        seen.add(key.raw)
    return TrustPool(WorkerPool.parse(name), Implementation(written["implementation"]), keys)


def _contradictions(pools: tuple[TrustPool, ...], at: Path) -> Iterator[tuple[Path, str]]:
    """Find keys that are revoked for one pool only: who stole a key does not care which pool it was of."""
    revoked = {key.raw: pool.worker_pool for pool in pools for key in pool.keys if key.state is KeyState.REVOKED}
    for pool in pools:
        for index, key in enumerate(pool.keys):
            if key.raw in revoked and key.state is not KeyState.REVOKED:
                yield (
                    (*at, str(pool.worker_pool), "keys", index, "state"),
                    f"found {key.state.value!r}, but for {revoked[key.raw]} this key is revoked; revoke it here too",
                )


def _key(at: Path, written: dict[str, Any], found: list[tuple[Path, str]]) -> TrustKey:
    raw = base64.b64decode(written["public"])
    if fingerprint(raw) != written["id"]:
        found.append(((*at, "id"), f"found {written['id']!r}; the key's fingerprint is {fingerprint(raw)}"))
    first, last = (_day(at, name, written, found) for name in ("valid-from", "valid-until"))
    state = KeyState(written.get("state", KeyState.ACTIVE.value))
    if first is not None and last is not None and last < first:
        found.append(((*at, "valid-until"), f"found {last}, which is before valid-from, {first}"))
    for wanted, name in ((KeyState.NEXT, "valid-from"), (KeyState.RETIRED, "valid-until")):
        if state is wanted and name not in written:
            found.append(((*at, "state"), f"found {state.value!r} without {name}; add the day"))
    return TrustKey(raw, state, first, last, tuple(_last_good(at, written, state, found)))


def _last_good(
    at: Path, written: dict[str, Any], state: KeyState, found: list[tuple[Path, str]]
) -> Iterator[Checkpoint]:
    """Read the checkpoints of a revoked key's logs: of this pool's workers, each shard once."""
    name = "last-good-checkpoints"
    pool, origins = at[1], set()
    if name in written and state is not KeyState.REVOKED:
        found.append(((*at, name), f"found it on a key that is {state.value}; only revoked ones have it"))
    for index, text in enumerate(written.get(name, ())):
        where: Path = (*at, name, index)
        try:
            # The signatures of a whole checkpoint, after its blank line, say nothing about a key that was stolen.
            checkpoint = parse_checkpoint(text.partition("\n\n")[0].strip().encode() + b"\n")
        except BadNote as error:
            found.append((where, f"found {text[:80]!r}: {error}; write the first three lines of the checkpoint"))
            continue
        if not checkpoint.origin.startswith(f"secureworker/{pool}/"):
            found.append((where, f"found a checkpoint of {checkpoint.origin}, which is no log of {pool}"))
        if checkpoint.origin in origins:
            found.append((where, f"{checkpoint.origin} is here twice; keep the one that is surely good"))
        origins.add(checkpoint.origin)
        yield checkpoint


def _day(at: Path, name: str, written: dict[str, Any], found: list[tuple[Path, str]]) -> date | None:
    if name not in written:
        return None
    try:
        return date.fromisoformat(written[name])
    except ValueError as error:
        found.append(((*at, name), f"found {written[name]!r}: {error}"))
        return None
