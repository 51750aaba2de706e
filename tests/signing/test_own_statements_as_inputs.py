"""What this worker signs is taken as an input by another of its kind, with its provenance, and not without."""

from dataclasses import replace
from datetime import timedelta

import pytest

from secureworker.core.chain import Judgement, Statements, Upstream, UpstreamRun, judge_inputs
from secureworker.core.ids import RunId, ScriptName, TaskId
from secureworker.core.inputs import InputPlan, Wanted
from secureworker.core.provenance import bundle, message
from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
from secureworker.ports import SignedFile
from secureworker.signing.keys import SigningKey, create_signing_key
from secureworker.signing.signer import InProcessSigner
from secureworker.signing.verify import checks
from secureworker.testing import EPOCH, IDENTITY, ROOT_URL, SHA256, TASK_ID, a_claim, an_artifact
from tests.signing.conftest import a_statement

CHAIN, SIGNATURE, BUNDLE = (
    "public/chain-of-trust.json",
    "public/chain-of-trust.json.sig",
    "public/provenance.sigstore.json",
)
PLAN = InputPlan((Wanted(TaskId(TASK_ID), ("public/a.txt",)),), worker_pools=(str(IDENTITY.pool),), max_size=100)


@pytest.fixture
async def signed(signer: InProcessSigner) -> dict[str, bytes]:
    """Give the statements of a run with one output."""
    files: tuple[SignedFile, ...] = await signer.sign(a_statement(an_artifact("public/a.txt", b"a")))
    return {file.name: file.content for file in files}


def judged(signed: dict[str, bytes], key: SigningKey, root_url: str = ROOT_URL) -> Judgement:
    """Judge the output as an input, by a policy that trusts the key."""
    trust = Trust((TrustPool(IDENTITY.pool, Implementation.SECUREWORKER, (TrustKey(key.public.raw),)),), root_url)
    run = UpstreamRun(RunId(0), "completed", IDENTITY.worker_group, IDENTITY.worker_id)
    statements = Statements(signed[CHAIN], signed[SIGNATURE], signed.get(BUNDLE))
    facts = Upstream(TaskId(TASK_ID), a_claim().task.verbatim, "completed", run, statements)
    return judge_inputs(PLAN, ScriptName("sign"), (facts,), trust, EPOCH + timedelta(hours=1), checks())


def step_that_failed(judgement: Judgement) -> str:
    assert judgement.inputs == ()
    assert judgement.reasons
    return judgement.reports[0].steps[-1].name


async def test_what_this_worker_signs_is_an_input_with_all_steps_passed(
    signed: dict[str, bytes], key: SigningKey
) -> None:
    judgement = judged(signed, key)

    assert judgement.reasons == ()
    assert [each.sha256 for each in judgement.inputs] == [an_artifact("public/a.txt", b"a").sha256]
    assert "SLSA provenance v1 of 1 artifacts" in judgement.reports[0].steps[9].details
    assert judgement.reports[0].key == key.public.fingerprint


@pytest.mark.parametrize(
    "payload", [b"{}", b"[]", b"<html></html>", b'{"_type": "https://in-toto.io/Statement/v1", "subject": []}']
)
async def test_with_something_else_in_place_of_its_provenance_it_is_none(
    signed: dict[str, bytes], key: SigningKey, key_path: object, payload: bytes
) -> None:
    def by(signer: SigningKey) -> str:
        named = {"key_id": key.public.fingerprint, "hint": key.public.hint}
        return step_that_failed(
            judged({**signed, BUNDLE: bundle(payload, signer.sign(message(payload)), **named)}, key)
        )

    assert by(key) == "statement"
    assert by(create_signing_key(f"{key_path}-other")) == "provenance"


async def test_without_its_provenance_it_is_none(signed: dict[str, bytes], key: SigningKey) -> None:
    del signed[BUNDLE]
    assert step_that_failed(judged(signed, key)) == "provenance"


async def test_with_the_provenance_of_another_key_it_is_none(
    signed: dict[str, bytes], key: SigningKey, key_path: object
) -> None:
    other = InProcessSigner(create_signing_key(f"{key_path}-other"), IDENTITY, SHA256, root_url=ROOT_URL)
    files = await other.sign(a_statement(an_artifact("public/a.txt", b"a")))
    signed[BUNDLE] = next(file.content for file in files if file.name == BUNDLE)
    assert step_that_failed(judged(signed, key)) == "provenance"


async def test_with_the_provenance_of_other_artifacts_it_is_none(signed: dict[str, bytes], key: SigningKey) -> None:
    again = InProcessSigner(key, IDENTITY, SHA256, root_url=ROOT_URL)
    files = await again.sign(a_statement(an_artifact("public/a.txt", b"b")))
    signed[BUNDLE] = next(file.content for file in files if file.name == BUNDLE)
    assert step_that_failed(judged(signed, key)) == "agreement"


async def test_of_another_deployment_it_is_none(signed: dict[str, bytes], key: SigningKey) -> None:
    assert step_that_failed(judged(signed, key, "https://other.example.com")) == "agreement"


async def test_a_bit_that_was_flipped_makes_it_none(signed: dict[str, bytes], key: SigningKey) -> None:
    for name, step in ((CHAIN, "signature"), (SIGNATURE, "signature"), (BUNDLE, "provenance")):
        changed = bytearray(signed[name])
        changed[len(changed) // 2] ^= 1
        assert step_that_failed(judged({**signed, name: bytes(changed)}, key)) == step, name


async def test_a_trusted_key_must_sign_for_its_own_pool(signed: dict[str, bytes], key: SigningKey) -> None:
    pool = replace(IDENTITY.pool, worker_type="another")
    trust = Trust((TrustPool(pool, Implementation.SECUREWORKER, (TrustKey(key.public.raw),)),), ROOT_URL)
    run = UpstreamRun(RunId(0), "completed", IDENTITY.worker_group, IDENTITY.worker_id)
    facts = Upstream(
        TaskId(TASK_ID),
        a_claim().task.verbatim,
        "completed",
        run,
        Statements(signed[CHAIN], signed[SIGNATURE], signed[BUNDLE]),
    )
    judgement = judge_inputs(PLAN, ScriptName("sign"), (facts,), trust, EPOCH + timedelta(hours=1), checks())
    assert step_that_failed(judgement) == "key"
