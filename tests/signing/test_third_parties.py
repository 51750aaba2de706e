"""What others use to verify must accept a good chain of trust, and reject it with one byte changed."""

import json
import subprocess
from pathlib import Path

import pytest

from secureworker.signing.keys import SigningKey

BODY = "public/chain-of-trust.json"
SIGNATURE = "public/chain-of-trust.json.sig"

OPENSSL_VERIFY = ("openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey")
SCRIPTWORKER = """
import json, pathlib, sys
import jsonschema, scriptworker
from scriptworker.ed25519 import ed25519_public_key_from_file, verify_ed25519_signature
from scriptworker.exceptions import ScriptWorkerEd25519Error
key, body, signature = sys.argv[1:]
content = pathlib.Path(body).read_bytes()
schema = pathlib.Path(scriptworker.__file__).parent / "data" / "cot_v1_schema.json"
jsonschema.validate(json.loads(content), json.loads(schema.read_text()))
try:
    verify_ed25519_signature(ed25519_public_key_from_file(key), content, pathlib.Path(signature).read_bytes(), "bad")
except ScriptWorkerEd25519Error:
    sys.exit("rejected")
print("accepted")
"""


def tamper(path: Path) -> None:
    """Change one byte, so that the JSON stays well formed."""
    content = path.read_bytes()
    digest = json.loads(content)["artifacts"]["public/a.txt"]["sha256"]
    other = ("0" if digest[0] != "0" else "1") + digest[1:]
    path.write_bytes(content.replace(digest.encode(), other.encode()))


@pytest.mark.parametrize("tampered", [False, True])
def test_openssl_accepts_the_good_and_rejects_the_tampered(
    published: Path, key: SigningKey, tmp_path: Path, *, tampered: bool
) -> None:
    (tmp_path / "key.pem").write_text(key.public.pem)
    if tampered:
        tamper(published / BODY)

    ended = subprocess.run(
        [*OPENSSL_VERIFY, tmp_path / "key.pem", "-in", published / BODY, "-sigfile", published / SIGNATURE],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode == 0) is not tampered
    assert ("Signature Verified Successfully" in ended.stdout) is not tampered


@pytest.mark.slow
@pytest.mark.parametrize("tampered", [False, True])
def test_scriptworker_accepts_the_good_and_rejects_the_tampered(
    published: Path, key_path: Path, scriptworker_python: Path, *, tampered: bool
) -> None:
    if tampered:
        tamper(published / BODY)

    ended = subprocess.run(
        [scriptworker_python, "-c", SCRIPTWORKER, f"{key_path}.pub", published / BODY, published / SIGNATURE],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.stdout, ended.stderr) == (("", "rejected\n") if tampered else ("accepted\n", ""))
