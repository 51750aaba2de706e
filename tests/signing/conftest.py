"""A key, a signer, and a directory of artifacts as it is downloaded."""

from pathlib import Path

import pytest

from secureworker.core.outcome import ExitCode
from secureworker.ports import Artifact, SignedFile, Statement
from secureworker.signing.keys import SigningKey, create_signing_key
from secureworker.signing.signer import InProcessSigner
from secureworker.testing import IDENTITY, ROOT_URL, SHA256, a_claim, an_artifact, an_execution


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    return directory / "signing"


@pytest.fixture
def key(key_path: Path) -> SigningKey:
    return create_signing_key(str(key_path))


@pytest.fixture
def signer(key: SigningKey) -> InProcessSigner:
    return InProcessSigner(key, IDENTITY, SHA256, root_url=ROOT_URL)


def a_statement(*artifacts: Artifact) -> Statement:
    return Statement(a_claim(), an_execution(ExitCode(0)), artifacts, SHA256, "build", SHA256, ROOT_URL)


def write(directory: Path, files: tuple[SignedFile, ...]) -> None:
    for file in files:
        (directory / file.name).parent.mkdir(parents=True, exist_ok=True)
        (directory / file.name).write_bytes(file.content)


@pytest.fixture
async def published(signer: InProcessSigner, tmp_path: Path) -> Path:
    """Give a directory with two artifacts, their chain of trust, and a log that it does not cover."""
    contents = {"public/a.txt": b"content of a", "public/build/b.bin": bytes(3_000_000)}
    directory = tmp_path / "published"
    for name, content in {**contents, "public/logs/live_backing.log": b"log"}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    statement = a_statement(*(an_artifact(name, content) for name, content in contents.items()))
    write(directory, await signer.sign(statement))
    return directory
