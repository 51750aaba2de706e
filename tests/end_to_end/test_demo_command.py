"""The demonstration as a newcomer runs it: one command, a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]


def demo(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secureworker", "demo", *options],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )


def openssl_accepts(public_key: Path, signed: Path, signature: Path) -> bool:
    argv = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(public_key)]
    argv += ["-in", str(signed), "-sigfile", str(signature)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_the_demo_ends_every_task_as_it_should_and_what_it_writes_verifies(tmp_path: Path) -> None:
    output = tmp_path / "release"

    told = demo("--output", str(output))

    assert told.returncode == 0, told.stdout + told.stderr
    assert "every task ended as it should" in told.stdout
    for resolved in ("completed / completed", "exception / malformed-payload", "exception / canceled"):
        assert resolved in told.stdout
    assert "44 of 44 attempts were refused" in told.stdout
    public = output / "build-tarball" / "public"
    assert (public / "build" / "SHA256SUMS").read_text().endswith("  hello-1.0.tar.gz\n")
    signed = json.loads((public / "chain-of-trust.json").read_bytes())
    assert set(signed["artifacts"]) == {"public/build/hello-1.0.tar.gz", "public/build/SHA256SUMS"}

    # What the demonstration said of itself is now checked by others, with the key that it left beside the artifacts.
    key = output / "signing-key.pem"
    chain, signature = public / "chain-of-trust.json", public / "chain-of-trust.json.sig"
    assert openssl_accepts(key, chain, signature)
    for directory in ("build-tarball", "nosy"):
        for whose in (["--key", str(key)], ["--trust", str(output / "trust.yml")]):
            argv = [sys.executable, "-m", "secureworker", "verify", str(output / directory), *whose]
            assert subprocess.run(argv, check=False).returncode == 0
    # Each signature is in the audit log, and the log is the one that was published with each task.
    kept = [f"--checkpoint={output / name / 'public' / 'audit.tlog-proof'}" for name in ("build-tarball", "nosy")]
    argv = [
        sys.executable,
        "-m",
        "secureworker",
        "audit",
        "verify",
        str(output / "audit-log"),
        "--key",
        str(key),
        *kept,
    ]
    assert subprocess.run(argv, check=False).returncode == 0
    bundle, tarball = public / "provenance.sigstore.json", public / "build" / "hello-1.0.tar.gz"
    argv = [sys.executable, "-m", "secureworker", "verify", str(bundle), str(tarball), "--key", str(key)]
    assert subprocess.run(argv, check=False).returncode == 0
    changed = bytearray(chain.read_bytes())
    changed[100] ^= 1
    chain.write_bytes(changed)
    assert not openssl_accepts(key, chain, signature)


def test_a_demo_on_a_host_without_a_runtime_says_what_is_missing_and_leaves_nothing(tmp_path: Path) -> None:
    told = demo("--output", str(tmp_path / "release"), SECUREWORKER_RUNTIME="no-such-runtime", TMPDIR=str(tmp_path))

    assert told.returncode == 1
    assert "no-such-runtime" in told.stdout
    assert "secureworker doctor" in told.stderr
    assert not list(tmp_path.glob("secureworker-*"))


def test_a_demo_does_not_write_into_a_directory_that_has_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    told = demo("--output", str(tmp_path))

    assert told.returncode == 2
    assert "is not empty; name a new directory" in told.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
