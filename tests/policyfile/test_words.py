"""What is said of policies in plain words, and what is advised, in the cases that `check`'s own tests leave out."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from secureworker.core.errors import PolicyError
from secureworker.core.outcome import Refused
from secureworker.policyfile import load
from secureworker.policyfile.advice import advise
from secureworker.policyfile.cases import read_cases
from secureworker.policyfile.summary import of_when
from secureworker.policyfile.trial import ask, complete
from secureworker.policyfile.words import describe
from tests.policyfile.policies import TEXT, read, with_rule, write

TODAY = datetime.now(UTC).date()
WHEN = '{scope-prefix: "project:x:action:", equals: sign}'
UPSTREAM = "upstream: {worker-pools: [release-3/*]}"


def trust(until: str) -> str:
    return (
        'trust: {worker-pools: {release-3/b: {implementation: secureworker, keys: [{valid-until: "' + until + '", '
        'id: "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg", '
        'public: "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="}]}}}\n'
    )


def said(directory: Path, text: str) -> str:
    return "\n".join(describe(read(directory, text)))


def test_a_policy_without_scopes_says_so(tmp_path: Path) -> None:
    text = TEXT.replace('["project:x:*"]', "[]").replace('    forbid: ["project:x:cert:nightly*"]\n', "")
    text = text.replace(f"    when: {WHEN}\n", "").replace("{type: object}", "{additionalProperties: false}")
    words = said(tmp_path, text)
    assert "it has no scopes at all" in words
    assert "reaches into" not in words
    assert "always: every task that is not refused is for it" in words
    assert "an empty payload" in words


def test_a_choice_by_the_payload_is_said(tmp_path: Path) -> None:
    text = TEXT.replace(WHEN, "{payload-field: action, equals: push}")
    assert "the payload's action is push" in said(tmp_path, text)
    assert of_when(read(tmp_path, text).scripts[0].when) == {"payload-field": "action", "equals": "push"}
    alone = read(tmp_path, TEXT.replace(f"    when: {WHEN}\n", "")).scripts[0]
    assert of_when(alone.when) == {}


def test_optional_and_further_keys_of_payloads_are_said(tmp_path: Path) -> None:
    text = TEXT.replace("{type: object}", "{properties: {a: {}, b: {}}, required: [a]}")
    assert "a payload with a, b (optional), and keys that its schema does not name" in said(tmp_path, text)


def test_inputs_that_need_not_be_there_are_said(tmp_path: Path) -> None:
    words = said(tmp_path, with_rule(UPSTREAM) + trust("2099-01-01"))
    assert "it may have artifacts of release-3/*, up to 8GiB" in words
    assert "no inputs of tasks" not in words
    assert "(revoked)" not in words


def test_a_denial_by_one_thing_is_said(tmp_path: Path) -> None:
    text = TEXT.replace("  max-run-time", "  deny: [{reason: never, project-ids: [p]}]\n  max-run-time")
    assert "it is not one of those with the projectId p: never" in said(tmp_path, text)
    text = TEXT.replace("  max-run-time", "  deny: [{reason: never, scheduler-ids: [s]}]\n  max-run-time")
    assert "it is not one of those with the schedulerId s: never" in said(tmp_path, text)


@pytest.mark.parametrize(("until", "warned"), [("2020-01-01", True), ("2099-01-01", False)])
def test_a_key_that_has_expired_is_named(tmp_path: Path, until: str, *, warned: bool) -> None:
    policy = read(tmp_path, with_rule(UPSTREAM) + trust(until))
    found = [str(warning) for warning in advise(policy, TODAY, host=True)]
    assert any("expired on 2020-01-01" in warning for warning in found) is warned


def test_a_key_that_never_expires_is_named(tmp_path: Path) -> None:
    policy = read(tmp_path, with_rule(UPSTREAM) + trust("2099-01-01").replace('valid-until: "2099-01-01", ', ""))
    assert any("never expires" in str(warning) for warning in advise(policy, TODAY, host=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_script_that_its_own_user_may_change_is_named(tmp_path: Path) -> None:
    policy = load(write(tmp_path), host=False)
    script = tmp_path / "bin" / "sign"
    os.chown(script, 12345, 12345)
    assert any("belongs to uid 12345" in str(warning) for warning in advise(policy, TODAY, host=True))
    script.unlink()
    assert not any("belongs to" in str(warning) for warning in advise(policy, TODAY, host=True))


@pytest.mark.parametrize("content", [b"\xff", b"cases: [", b"x" * 2_000_000])
def test_cases_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cases.yml").write_bytes(content)
    with pytest.raises(PolicyError):
        read_cases(str(tmp_path / "cases.yml"))


def test_a_task_that_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    nested: dict[str, object] = {}
    for _ in range(500):
        nested = {"a": nested}
    decision = ask({"payload": nested}, read(tmp_path))  # type: ignore[dict-item]
    assert isinstance(decision, Refused)


def test_a_definition_is_completed_as_the_policy_would_have_it(tmp_path: Path) -> None:
    source = "sources: [{scheme: https, host: github.com, owner: o, repository: r}]"
    policy = read(tmp_path, TEXT.replace("tasks:\n", f"tasks:\n  {source}\n"))
    task = complete({"metadata": {"name": "mine"}, "provisionerId": "a", "workerType": "b"}, policy)
    assert task["metadata"] == {
        "name": "mine",
        "description": "",
        "owner": "a@example.com",
        "source": "https://github.com/o/r",
    }
    assert (task["schedulerId"], task["projectId"]) == ("release", "x")
    assert "taskQueueId" not in task
    assert date.fromisoformat(str(task["created"])[:10]) == date(2026, 1, 1)
