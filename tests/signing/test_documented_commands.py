"""The commands that docs/verifying.md gives to who verifies a release, run as they stand there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from secureworker.core.keylists import new_trust_file
from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
from secureworker.signing.keys import SigningKey
from secureworker.testing import IDENTITY, ROOT_URL


def commands(checkout: Path, tool: str) -> str:
    """Give the block of commands below a tool's name."""
    text = (checkout / "docs" / "verifying.md").read_text()
    (block,) = re.findall(rf"^\*\*\d\. {tool}\*\*.*?^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(block)


def run(script: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    here = Path(sys.executable).parent
    environment = {"PATH": f"{here}:/usr/local/bin:/usr/bin:/bin", "HOME": str(directory)}
    argv = ["sh", "-eu", "-c", script]
    return subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def release(published: Path, key: SigningKey) -> Path:
    """Give the directory of a release, with the trust file that its verifiers have."""
    pool = TrustPool(IDENTITY.pool, Implementation.SECUREWORKER, (TrustKey(key.public.raw),))
    (published / "trust.yml").write_text(new_trust_file(Trust((pool,), ROOT_URL)))
    return published


needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")


@needs_jq
def test_openssl_and_sha256sum_verify_a_release_as_documented(release: Path, checkout: Path) -> None:
    done = run(commands(checkout, "openssl"), release)

    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert "public/a.txt: OK" in done.stdout


@needs_jq
def test_openssl_and_sha256sum_notice_another_artifact_and_another_statement(release: Path, checkout: Path) -> None:
    (release / "public" / "a.txt").write_bytes(b"content of b")
    done = run(commands(checkout, "openssl"), release)
    assert (done.returncode, "public/a.txt: FAILED" in done.stdout) == (1, True)

    body = release / "public" / "chain-of-trust.json"
    body.write_bytes(body.read_bytes().replace(b'"runId": 0', b'"runId": 1'))
    assert run(commands(checkout, "openssl"), release).returncode != 0


@pytest.mark.skipif(shutil.which("cosign") is None, reason="needs cosign")
def test_cosign_verifies_a_release_as_documented(release: Path, checkout: Path) -> None:
    assert run(commands(checkout, "openssl"), release).returncode == 0
    command = commands(checkout, "cosign").replace("app.apk", "public/a.txt")

    assert run(command, release).returncode == 0
    (release / "public" / "a.txt").write_bytes(b"content of b")
    assert run(command, release).returncode != 0


def test_secureworker_verifies_a_release_and_one_file_of_it_as_documented(release: Path, checkout: Path) -> None:
    text = (checkout / "docs" / "verifying.md").read_text()
    (block,) = re.findall(r"^```sh\n(secureworker verify DIRECTORY.*?)^```", text, re.MULTILINE | re.DOTALL)
    directory, one_file = str(block).splitlines()
    (release / "trust.yml").rename(release.parent / "trust.yml")
    for documented, here in ((directory, "."), (one_file, "")):
        command = documented.partition("#")[0].replace("DIRECTORY", here).replace("app.apk", "public/a.txt")
        done = run(command.replace("trust.yml", "../trust.yml"), release)

        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("verified\n")
