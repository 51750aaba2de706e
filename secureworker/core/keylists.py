"""A trust file's keys in the forms that other verifiers take. Texts from values; nothing is left out silently.

Forms without validity get the keys only that sign now or will soon. Forms with it also get those that are retired.
Revoked keys are in none: no other form can say "up to this position of the log".
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.ids import WorkerPool
from secureworker.core.trust import Implementation, KeyState, Trust, TrustKey, TrustPool, hint, spki, wire

_NOW: Final = frozenset({KeyState.ACTIVE, KeyState.NEXT})
_EVER: Final = _NOW | {KeyState.RETIRED}
SSH_NAMESPACE: Final = "file"
"""What `ssh-keygen -Y sign -n` of the same keys is accepted for."""


def _keys(
    trust: Trust, worker_pool: WorkerPool | None, states: frozenset[KeyState]
) -> Iterator[tuple[TrustPool, TrustKey]]:
    for pool in trust.pools:
        if worker_pool is None or pool.worker_pool == worker_pool:
            yield from ((pool, key) for key in pool.keys if key.state in states)


def scriptworker(trust: Trust, worker_pool: WorkerPool | None = None) -> str:
    """Write scriptworker's `ed25519_public_keys`, by kind of worker; what this worker writes, is one of its own."""
    lists: dict[str, list[str]] = {}
    for pool, key in _keys(trust, worker_pool, _NOW):
        kind = (
            Implementation.SCRIPTWORKER if pool.implementation is Implementation.SECUREWORKER else pool.implementation
        )
        listed = lists.setdefault(kind.value, [])
        text = base64.b64encode(key.raw).decode()
        if text not in listed:
            listed.append(text)
    lines = ["ed25519_public_keys:"]
    for name, keys in sorted(lists.items()):
        lines += [f"  {name}:", *(f'    - "{key}"' for key in keys)]
    return "".join(f"{line}\n" for line in lines)


def pem(trust: Trust, worker_pool: WorkerPool | None = None) -> str:
    """Write PEM for openssl and `cosign --key`, each key below the name of its pool."""
    return "".join(
        f"# {pool.worker_pool} {key.fingerprint}\n{_pem(key.raw)}" for pool, key in _keys(trust, worker_pool, _NOW)
    )


def _pem(raw: bytes) -> str:
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(spki(raw)).decode()}\n-----END PUBLIC KEY-----\n"


def allowed_signers(trust: Trust, worker_pool: WorkerPool | None = None) -> str:
    """Write OpenSSH's allowed_signers (ssh-keygen(1)); the principal is the pool."""
    lines = []
    for pool, key in _keys(trust, worker_pool, _EVER):
        options = [f'namespaces="{SSH_NAMESPACE}"']
        if key.valid_from is not None:
            options.append(f'valid-after="{key.valid_from:%Y%m%d}Z"')
        if key.valid_until is not None:
            # The last day counts whole; OpenSSH's bound is a moment.
            options.append(f'valid-before="{key.valid_until + timedelta(days=1):%Y%m%d}Z"')
        blob = base64.b64encode(wire(key.raw)).decode()
        lines.append(f"{pool.worker_pool} {','.join(options)} ssh-ed25519 {blob}\n")
    return "".join(lines)


def sigstore_keys(trust: Trust, worker_pool: WorkerPool | None = None) -> str:
    """Write the keys by hint, as sigstore's libraries look them up for a bundle with `publicKey.hint`."""
    keys = {hint(key.raw): _sigstore_key(key) for _, key in _keys(trust, worker_pool, _EVER)}
    return json.dumps(keys, indent=2) + "\n"


def trusted_root(trust: Trust, origins: tuple[str, ...], worker_pool: WorkerPool | None = None) -> str:
    """Write a sigstore TrustedRoot v0.1 with the pools' audit logs as its transparency logs.

    It holds no other keys: sigstore's roots have no place for those that sign statements; `pem` is for them.

    Args:
        trust: whose keys.
        origins: names of logs, as the first lines of their checkpoints have them.
        worker_pool: only this pool's keys.
    """
    logs: list[Json] = [
        {
            "baseUrl": f"https://{origin}",
            "hashAlgorithm": "SHA2_256",
            "publicKey": _sigstore_key(key),
            "logId": {"keyId": _log_id(origin, key.raw)},
        }
        for origin in origins
        for _, key in _keys(trust, worker_pool, _EVER)
    ]
    root: dict[str, Json] = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": logs,
        "certificateAuthorities": [],
        "ctlogs": [],
        "timestampAuthorities": [],
    }
    return json.dumps(root, indent=2) + "\n"


def _log_id(origin: str, raw: bytes) -> str:
    """Name a log as its checkpoints' signature lines do (c2sp.org/signed-note), with all 32 bytes."""
    return base64.b64encode(hashlib.sha256(origin.encode() + b"\n\x01" + raw).digest()).decode()


def _sigstore_key(key: TrustKey) -> dict[str, Json]:
    valid: dict[str, Json] = {"start": _start(key.valid_from or date(1970, 1, 1))}
    if key.valid_until is not None:
        valid["end"] = _start(key.valid_until + timedelta(days=1))
    return {
        "rawBytes": base64.b64encode(spki(key.raw)).decode(),
        "keyDetails": "PKIX_ED25519",
        "validFor": valid,
    }


def _start(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def new_trust_file(trust: Trust) -> str:
    """Write a trust file, as YAML."""
    lines = ["version: 1"]
    if trust.root_url:
        lines.append(f'root-url: "{trust.root_url}"')
    lines.append("worker-pools:")
    for pool in trust.pools:
        lines += [f'  "{pool.worker_pool}":', f"    implementation: {pool.implementation.value}", "    keys:"]
        for key in pool.keys:
            lines += [
                f'      - id: "{key.fingerprint}"',
                f'        public: "{base64.b64encode(key.raw).decode()}"',
                f"        state: {key.state.value}",
            ]
            if key.valid_from is not None:
                lines.append(f'        valid-from: "{key.valid_from}"')
            if key.valid_until is not None:
                lines.append(f'        valid-until: "{key.valid_until}"')
    return "".join(f"{line}\n" for line in lines)
