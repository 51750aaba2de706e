"""What others use to verify must accept good provenance, and reject what was tampered with, in every part."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secureworker.core import keylists
from secureworker.core.provenance import bundle, message
from secureworker.core.trust import Implementation, KeyState, Trust, TrustKey, TrustPool
from secureworker.signing.keys import SigningKey, create_signing_key
from secureworker.testing import IDENTITY

PROVENANCE = "public/provenance.sigstore.json"
SUBJECT = "public/a.txt"
SCRIPT = Path(__file__).parent / "node" / "verify.cjs"

# Arguments: bundle, trusted root. The classes are in-toto's and sigstore's own.
MODELS = """
import json, pathlib, sys
from google.protobuf.json_format import ParseDict, ParseError
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from sigstore_models.bundle.v1 import Bundle
from sigstore_models.trustroot.v1 import TrustedRoot

bundle, root = (pathlib.Path(path).read_bytes() for path in sys.argv[1:])
try:
    document = json.loads(Bundle.from_json(bundle).dsse_envelope.payload)
    Statement.copy_from_pb(ParseDict(document, statement_pb2.Statement())).validate()
    ParseDict(document["predicate"], Provenance())
    TrustedRoot.from_json(root)
except (ValueError, ParseError) as error:
    sys.exit(f"rejected: {type(error).__name__}")
print("accepted")
"""

Change = Callable[[dict[str, Any]], object]


def trust_in(key: SigningKey, state: KeyState = KeyState.ACTIVE) -> Trust:
    return Trust((TrustPool(IDENTITY.pool, Implementation.SECUREWORKER, (TrustKey(key.public.raw, state),)),))


def change_payload(document: dict[str, Any], found: str, put: str) -> None:
    payload = base64.b64decode(document["dsseEnvelope"]["payload"]).decode()
    assert found in payload
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(found, put, 1).encode()).decode()


def change_subject(document: dict[str, Any]) -> None:
    payload = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    subject = next(each for each in payload["subject"] if each["name"] == SUBJECT)
    subject["digest"]["sha256"] = "0" * 64
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()


def change_signature(document: dict[str, Any]) -> None:
    signature = document["dsseEnvelope"]["signatures"][0]
    changed = bytearray(base64.b64decode(signature["sig"]))
    changed[5] ^= 1
    signature["sig"] = base64.b64encode(changed).decode()


TAMPERED: dict[str, Change] = {
    "payload": lambda d: change_payload(d, '"exitCode":0', '"exitCode":1'),
    "subject": change_subject,
    "signature": change_signature,
    "no signature": lambda d: d["dsseEnvelope"].update(signatures=[]),
    "type": lambda d: d["dsseEnvelope"].update(payloadType="application/json"),
    "hint": lambda d: d["verificationMaterial"]["publicKey"].update(hint="b3RoZXI="),
    "media type": lambda d: d.update(mediaType="application/json"),
}


def tamper(published: Path, change: Change) -> None:
    path = published / PROVENANCE
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(json.dumps(document).encode())


@pytest.fixture
def other_key(tmp_path: Path) -> SigningKey:
    (tmp_path / "others").mkdir(mode=0o700)
    return create_signing_key(str(tmp_path / "others" / "signing"))


# @sigstore/verify, with the trusted root and the keys as `secureworker keys export` writes them.


def sigstore_js(modules: Path, published: Path, trust: Trust, directory: Path) -> tuple[int, str]:
    (directory / "root.json").write_text(keylists.trusted_root(trust, ("log.example.com/pool",)))
    (directory / "keys.json").write_text(keylists.sigstore_keys(trust))
    argv = ["node", SCRIPT, modules, published / PROVENANCE, directory / "root.json", directory / "keys.json"]
    ended = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, (ended.stdout + ended.stderr).strip()


@pytest.mark.slow
def test_sigstore_js_accepts_the_good(published: Path, key: SigningKey, sigstore_modules: Path, tmp_path: Path) -> None:
    assert sigstore_js(sigstore_modules, published, trust_in(key), tmp_path) == (0, "https://slsa.dev/provenance/v1")


@pytest.mark.slow
@pytest.mark.parametrize("what", TAMPERED)
def test_sigstore_js_rejects_what_was_tampered_with(
    published: Path, key: SigningKey, sigstore_modules: Path, tmp_path: Path, what: str
) -> None:
    tamper(published, TAMPERED[what])

    code, said = sigstore_js(sigstore_modules, published, trust_in(key), tmp_path)

    assert (code, said.startswith("rejected: ")) == (1, True), said


@pytest.mark.slow
def test_sigstore_js_rejects_another_key_and_a_revoked_one(
    published: Path, key: SigningKey, other_key: SigningKey, sigstore_modules: Path, tmp_path: Path
) -> None:
    for trust in (trust_in(other_key), trust_in(key, KeyState.REVOKED)):
        code, said = sigstore_js(sigstore_modules, published, trust, tmp_path)

        assert (code, said.startswith("rejected: PUBLIC_KEY_ERROR")) == (1, True), said


@pytest.mark.slow
def test_sigstore_js_rejects_another_key_under_this_ones_name(
    published: Path, key: SigningKey, other_key: SigningKey, sigstore_modules: Path, tmp_path: Path
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["verificationMaterial"]["publicKey"]["hint"] = other_key.public.hint

    tamper(published, change)

    code, said = sigstore_js(sigstore_modules, published, trust_in(other_key), tmp_path)

    assert (code, said.startswith("rejected: SIGNATURE_ERROR")) == (1, True), said


# in-toto's and sigstore's models: the form, and nothing of signatures.


def models(python: Path, published: Path, key: SigningKey, directory: Path) -> str:
    root = directory / "root.json"
    root.write_text(keylists.trusted_root(trust_in(key), ("log.example.com/pool",)))
    argv = [str(python), "-c", MODELS, str(published / PROVENANCE), str(root)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return (ended.stdout + ended.stderr).strip()


@pytest.mark.slow
def test_provenance_fits_the_models_of_in_toto_and_sigstore(
    published: Path, key: SigningKey, models_python: Path, tmp_path: Path
) -> None:
    assert models(models_python, published, key, tmp_path) == "accepted"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda d: change_payload(d, '"subject":[', '"subjects":['),
        lambda d: change_payload(d, "https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0"),
        lambda d: change_payload(d, '"resolvedDependencies"', '"materials"'),
        lambda d: d.update(verificationMaterial={}),
    ],
)
def test_the_models_reject_another_form(
    published: Path, key: SigningKey, models_python: Path, tmp_path: Path, change: Change
) -> None:
    tamper(published, change)

    assert models(models_python, published, key, tmp_path).startswith("rejected: ")


# openssl knows no envelopes: what is signed is written down for it as DSSE says.


def openssl(published: Path, pem: str, directory: Path) -> bool:
    envelope = json.loads((published / PROVENANCE).read_bytes())["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    (directory / "signed").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    (directory / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (directory / "key.pem").write_text(pem)
    argv = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "key.pem", "-in", "signed"]
    ended = subprocess.run([*argv, "-sigfile", "signature"], cwd=directory, capture_output=True, check=False)
    return ended.returncode == 0


def test_openssl_accepts_the_good_with_the_exported_key(published: Path, key: SigningKey, tmp_path: Path) -> None:
    assert openssl(published, keylists.pem(trust_in(key)), tmp_path)


@pytest.mark.parametrize("what", ["payload", "subject", "signature", "type"])
def test_openssl_rejects_what_was_tampered_with(published: Path, key: SigningKey, tmp_path: Path, what: str) -> None:
    tamper(published, TAMPERED[what])

    assert not openssl(published, keylists.pem(trust_in(key)), tmp_path)


def test_openssl_rejects_another_key(published: Path, other_key: SigningKey, tmp_path: Path) -> None:
    assert not openssl(published, keylists.pem(trust_in(other_key)), tmp_path)


# cosign, where it is installed: Debian has it from 13 on.

COSIGN = shutil.which("cosign")
needs_cosign = pytest.mark.skipif(COSIGN is None, reason="needs cosign")


def cosign(published: Path, trust: Trust, directory: Path, artifact: str = SUBJECT) -> bool:
    (directory / "key.pem").write_text(re.sub(r"^#.*\n", "", keylists.pem(trust), flags=re.MULTILINE))
    (directory / "root.json").write_text(keylists.trusted_root(trust, ()))
    argv = [str(COSIGN), "verify-blob-attestation", "--key", "key.pem", "--type", "slsaprovenance1"]
    argv += ["--bundle", str(published / PROVENANCE), "--new-bundle-format", "--insecure-ignore-tlog"]
    argv += ["--trusted-root", "root.json", str(published / artifact)]
    ended = subprocess.run(argv, cwd=directory, capture_output=True, check=False, timeout=60)
    return ended.returncode == 0


@needs_cosign
def test_cosign_accepts_the_good(published: Path, key: SigningKey, tmp_path: Path) -> None:
    assert cosign(published, trust_in(key), tmp_path)


@needs_cosign
@pytest.mark.parametrize("what", ["payload", "subject", "signature", "no signature", "type", "media type"])
def test_cosign_rejects_what_was_tampered_with(published: Path, key: SigningKey, tmp_path: Path, what: str) -> None:
    tamper(published, TAMPERED[what])

    assert not cosign(published, trust_in(key), tmp_path)


@needs_cosign
def test_cosign_rejects_another_key_and_another_file(
    published: Path, key: SigningKey, other_key: SigningKey, tmp_path: Path
) -> None:
    assert not cosign(published, trust_in(other_key), tmp_path)
    assert not cosign(published, trust_in(key), tmp_path, "public/logs/live_backing.log")


@needs_cosign
def test_cosign_rejects_another_predicate(published: Path, key: SigningKey, tmp_path: Path) -> None:
    payload = base64.b64decode(json.loads((published / PROVENANCE).read_bytes())["dsseEnvelope"]["payload"])
    other = payload.replace(b"https://slsa.dev/provenance/v1", b"https://example.com/other/v1")
    names = {"key_id": key.public.fingerprint, "hint": key.public.hint}
    (published / PROVENANCE).write_bytes(bundle(other, key.sign(message(other)), **names))

    assert not cosign(published, trust_in(key), tmp_path)


def cosign_blob(published: Path, pem: str, directory: Path) -> bool:
    """Verify the chain of trust as what it is to cosign: a file with a signature beside it."""
    (directory / "key.pem").write_text(re.sub(r"^#.*\n", "", pem, flags=re.MULTILINE))
    body = published / "public" / "chain-of-trust.json"
    # The detached signature in base64, as cosign writes its own.
    (directory / "signature").write_text(base64.b64encode(Path(f"{body}.sig").read_bytes()).decode())
    argv = [str(COSIGN), "verify-blob", "--key", "key.pem", "--signature", "signature", "--insecure-ignore-tlog"]
    ended = subprocess.run(
        [*argv, "--new-bundle-format=false", str(body)], cwd=directory, capture_output=True, check=False, timeout=60
    )
    return ended.returncode == 0


@needs_cosign
def test_cosign_accepts_the_chain_of_trust_and_rejects_what_was_tampered_with(
    published: Path, key: SigningKey, other_key: SigningKey, tmp_path: Path
) -> None:
    pem = keylists.pem(trust_in(key))
    assert cosign_blob(published, pem, tmp_path)
    assert not cosign_blob(published, keylists.pem(trust_in(other_key)), tmp_path)
    body = published / "public" / "chain-of-trust.json"
    body.write_bytes(body.read_bytes().replace(b'"runId": 0', b'"runId": 1'))
    assert not cosign_blob(published, pem, tmp_path)
