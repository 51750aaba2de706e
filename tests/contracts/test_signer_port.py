"""The port `Signer`: the one that signs and the fake keep the same promises."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from secureworker.core.errors import HostError
from secureworker.core.ids import RunId, WorkerIdentity
from secureworker.core.outcome import ExitCode
from secureworker.ports import Artifact, Signer, Statement
from secureworker.signing.keys import create_signing_key
from secureworker.signing.signer import InProcessSigner
from secureworker.testing import IDENTITY, ROOT_URL, SHA256, FakeClock, FakeSigner, a_claim, an_artifact, an_execution

Make = Callable[[Path], Signer]


def the_real_one(directory: Path) -> Signer:
    return InProcessSigner(create_signing_key(str(directory / "key")), IDENTITY, SHA256, root_url=ROOT_URL)


def the_fake(directory: Path) -> Signer:
    return FakeSigner(FakeClock())


each = pytest.mark.parametrize("make", [the_real_one, the_fake])


def a_statement(*artifacts: Artifact) -> Statement:
    return Statement(a_claim(), an_execution(ExitCode(0)), artifacts, SHA256, "build", SHA256, ROOT_URL)


@each
async def test_a_statement_and_its_signature_are_given_under_their_names(make: Make, tmp_path: Path) -> None:
    body, signature = await make(tmp_path).sign(a_statement())

    assert body.name == "public/chain-of-trust.json"
    assert signature.name == "public/chain-of-trust.json.sig"
    assert len(signature.content) == 64


@each
async def test_the_same_statement_may_be_asked_for_again(make: Make, tmp_path: Path) -> None:
    signer = make(tmp_path)

    assert await signer.sign(a_statement()) == await signer.sign(a_statement())


@each
async def test_a_second_statement_for_a_run_is_refused(make: Make, tmp_path: Path) -> None:
    signer = make(tmp_path)
    await signer.sign(a_statement())

    with pytest.raises(HostError):
        await signer.sign(a_statement(an_artifact("public/a")))


@each
async def test_another_run_may_have_another_statement(make: Make, tmp_path: Path) -> None:
    signer = make(tmp_path)
    await signer.sign(a_statement())

    await signer.sign(replace(a_statement(an_artifact("public/a")), claim=replace(a_claim(), run_id=RunId(1))))


@each
async def test_a_statement_of_another_worker_is_refused(make: Make, tmp_path: Path) -> None:
    other = replace(a_claim(), worker=WorkerIdentity(IDENTITY.pool, "test-group", "other"))

    with pytest.raises(HostError):
        await make(tmp_path).sign(replace(a_statement(), claim=other))
