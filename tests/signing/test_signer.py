"""The signer signs what is its worker's to say, once per run."""

import asyncio
import json
from dataclasses import replace

import pytest

from secureworker.core.errors import HostError
from secureworker.core.ids import RunId, Sha256, WorkerIdentity, WorkerPool
from secureworker.core.outcome import ExitCode
from secureworker.ports import Statement
from secureworker.signing.keys import SigningKey
from secureworker.signing.signer import InProcessSigner
from secureworker.testing import IDENTITY, ROOT_URL, SHA256, a_claim, an_artifact, an_execution
from tests.signing.conftest import a_statement


async def test_a_statement_is_signed_over_exactly_its_bytes(signer: InProcessSigner, key: SigningKey) -> None:
    body, signature, _ = await signer.sign(a_statement(an_artifact("public/a", b"content")))

    assert (body.name, body.content_type) == ("public/chain-of-trust.json", "application/json")
    assert (signature.name, signature.content_type) == ("public/chain-of-trust.json.sig", "application/octet-stream")
    assert len(signature.content) == 64
    assert key.public.verifies(signature.content, body.content)
    assert signer.public_key == key.public
    assert json.loads(body.content)["artifacts"] == {"public/a": {"sha256": an_artifact("a", b"content").sha256}}


@pytest.mark.parametrize(
    "worker",
    [
        WorkerIdentity(WorkerPool("test-provisioner", "other-pool"), "test-group", "test-worker"),
        WorkerIdentity(IDENTITY.pool, "other-group", "test-worker"),
        WorkerIdentity(IDENTITY.pool, "test-group", "other-worker"),
    ],
)
async def test_a_statement_of_another_worker_is_refused(signer: InProcessSigner, worker: WorkerIdentity) -> None:
    statement = a_statement()

    with pytest.raises(HostError, match="refuses a statement of"):
        await signer.sign(replace(statement, claim=replace(statement.claim, worker=worker)))


async def test_a_task_of_another_pool_is_refused(signer: InProcessSigner) -> None:
    claim = a_claim()
    other = replace(claim, task=replace(claim.task, pool=WorkerPool("test-provisioner", "other-pool")))

    with pytest.raises(HostError, match="refuses a task of the pool test-provisioner/other-pool"):
        await signer.sign(replace(a_statement(), claim=other))


async def test_a_statement_under_another_policy_is_refused(signer: InProcessSigner) -> None:
    with pytest.raises(HostError, match="signs under the policy"):
        await signer.sign(replace(a_statement(), policy_sha256=Sha256("0" * 64)))


async def test_a_statement_of_another_deployment_is_refused(signer: InProcessSigner) -> None:
    with pytest.raises(HostError, match="refuses a statement for https://other"):
        await signer.sign(replace(a_statement(), root_url="https://other.example.com"))


async def test_the_same_statement_again_gives_the_same_bytes(signer: InProcessSigner) -> None:
    assert await signer.sign(a_statement()) == await signer.sign(a_statement())


@pytest.mark.parametrize(
    "other",
    [
        a_statement(an_artifact("public/a", b"other content")),
        replace(a_statement(), execution=an_execution(ExitCode(1))),
        replace(a_statement(), claim=a_claim(payload={"other": 1})),
    ],
)
async def test_a_second_statement_for_a_run_is_refused(signer: InProcessSigner, other: Statement) -> None:
    await signer.sign(a_statement())

    with pytest.raises(HostError, match="a different statement was already signed for the run"):
        await signer.sign(other)


async def test_another_run_of_the_task_has_its_own_statement(signer: InProcessSigner) -> None:
    first = await signer.sign(a_statement())
    claim = replace(a_claim(), run_id=RunId(1))

    assert await signer.sign(replace(a_statement(), claim=claim)) != first


async def test_of_two_statements_at_once_one_is_signed(signer: InProcessSigner) -> None:
    statements = [a_statement(an_artifact("public/a", bytes([number]))) for number in range(8)]

    results = await asyncio.gather(*map(signer.sign, statements), return_exceptions=True)

    assert sum(isinstance(result, tuple) for result in results) == 1


async def test_what_is_remembered_of_signed_runs_is_bounded_and_never_forgotten(key: SigningKey) -> None:
    signer = InProcessSigner(key, IDENTITY, SHA256, root_url=ROOT_URL, remembered_runs=2)
    for number in range(2):
        await signer.sign(replace(a_statement(), claim=replace(a_claim(), run_id=RunId(number))))

    with pytest.raises(HostError, match="the signer remembers 2 runs, and no more"):
        await signer.sign(replace(a_statement(), claim=replace(a_claim(), run_id=RunId(2))))
    with pytest.raises(HostError, match="already signed"):
        await signer.sign(a_statement(an_artifact("public/a")))
