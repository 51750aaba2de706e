"""The port `Signer`: the one that signs and the fake keep the same promises."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from secureworker.core.audit import AuditRecord, Event
from secureworker.core.errors import HostError
from secureworker.core.ids import RunId, WorkerIdentity
from secureworker.core.outcome import ExitCode
from secureworker.ports import Artifact, Signer, Statement
from secureworker.signing.client import child_settings, child_signer
from secureworker.signing.keys import create_signing_key
from secureworker.signing.signer import InProcessSigner
from secureworker.testing import IDENTITY, ROOT_URL, SHA256, FakeClock, FakeSigner, a_claim, an_artifact, an_execution

Make = Callable[[Path], AbstractAsyncContextManager[Signer]]


@asynccontextmanager
async def in_this_process(directory: Path) -> AsyncIterator[Signer]:
    yield InProcessSigner(create_signing_key(str(directory / "key")), IDENTITY, SHA256, root_url=ROOT_URL)


@asynccontextmanager
async def a_process_of_its_own(directory: Path) -> AsyncIterator[Signer]:
    create_signing_key(str(directory / "key"))
    settings = child_settings(IDENTITY, f"file:{directory / 'key'}", str(directory / "audit"), root_url=ROOT_URL)
    async with child_signer(settings, IDENTITY) as signer:
        await signer.append(AuditRecord(Event.POLICY_LOAD, digests=(("policy", SHA256),)))
        yield signer


@asynccontextmanager
async def the_fake(_: Path) -> AsyncIterator[Signer]:
    yield FakeSigner(FakeClock())


@pytest.fixture(params=[in_this_process, a_process_of_its_own, the_fake])
async def signer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Signer]:
    make: Make = request.param
    async with make(tmp_path) as made:
        yield made


def a_statement(*artifacts: Artifact) -> Statement:
    return Statement(a_claim(), an_execution(ExitCode(0)), artifacts, SHA256, "build", SHA256, ROOT_URL)


async def test_a_statement_and_its_signature_are_given_under_their_names(signer: Signer) -> None:
    body, signature, *_ = await signer.sign(a_statement())

    assert body.name == "public/chain-of-trust.json"
    assert signature.name == "public/chain-of-trust.json.sig"
    assert len(signature.content) == 64


async def test_the_same_statement_may_be_asked_for_again(signer: Signer) -> None:
    first, again = [await signer.sign(a_statement()) for _ in range(2)]

    # Behind them may come a proof from a log, which has grown meanwhile.
    assert first[:2] == again[:2]


async def test_a_second_statement_for_a_run_is_refused(signer: Signer) -> None:
    await signer.sign(a_statement())

    with pytest.raises(HostError):
        await signer.sign(a_statement(an_artifact("public/a")))


async def test_another_run_may_have_another_statement(signer: Signer) -> None:
    await signer.sign(a_statement())

    await signer.sign(replace(a_statement(an_artifact("public/a")), claim=replace(a_claim(), run_id=RunId(1))))


async def test_a_statement_of_another_worker_is_refused(signer: Signer) -> None:
    other = replace(a_claim(), worker=WorkerIdentity(IDENTITY.pool, "test-group", "other"))

    with pytest.raises(HostError):
        await signer.sign(replace(a_statement(), claim=other))
