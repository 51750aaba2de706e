"""Where a task may come from, what is denied, and what chooses by the payload: each key refusing and admitting."""

import pytest

from secureworker.core.claim import Json
from secureworker.core.ids import ScriptName
from secureworker.core.policy import DenyRule, PayloadEquals, Source
from secureworker.core.schemas import CompiledSchema
from secureworker.core.templates import Template
from tests.core.claims import a_claim, a_policy, a_rule, admitted, refused

FIREFOX = Source("https", "github.com", "mozilla-mobile", "firefox-ios")
CENTRAL = Source("https", "hg.mozilla.org", "", "mozilla-central")


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/mozilla-mobile/firefox-ios",
        "https://github.com/mozilla-mobile/firefox-ios/",
        "https://github.com/mozilla-mobile/firefox-ios/raw/3f5c/.taskcluster.yml",
        "https://hg.mozilla.org/mozilla-central/file/3f5c/taskcluster/kinds",
    ],
)
def test_a_task_from_an_allowed_repository_is_admitted(url: str) -> None:
    admitted(a_claim(source=url), a_policy(sources=(FIREFOX, CENTRAL)))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://github.com/mozilla-mobile",
        "https://github.com/mozilla-mobile/firefox-ios-evil",
        "https://github.com/mozilla-mobile/firefox-ios.git",
        "https://github.com/evil/firefox-ios",
        "https://github.com/evil/mozilla-mobile/firefox-ios",
        "https://github.com.evil.com/mozilla-mobile/firefox-ios",
        "https://github.com:8443/mozilla-mobile/firefox-ios",
        "https://github.com@evil.com/mozilla-mobile/firefox-ios",
        "https://evil.com/?https://github.com/mozilla-mobile/firefox-ios",
        "https://evil.com/#https://github.com/mozilla-mobile/firefox-ios",
        "https://evil.com\\@github.com/mozilla-mobile/firefox-ios",
        "https://github.com/mozilla-mobile/x/../firefox-ios",
        "https://github.com/mozilla-mobile/firefox-ios/../../evil/repo",
        "https://github.com/mozilla-mobile//firefox-ios",
        "https://github.com//mozilla-mobile/firefox-ios",
        "https://github.com/mozilla-mobile/firefox%2dios",
        "https://GitHub.com/mozilla-mobile/firefox-ios",
        "https://github.com/Mozilla-Mobile/firefox-ios",
        "http://github.com/mozilla-mobile/firefox-ios",
        "https://github.com/mozilla-mobile/firefox-ios\n",
        "https://hg.mozilla.org/evil/mozilla-central",
        "https://hg.mozilla.org/",
    ],
)
def test_a_look_alike_repository_is_refused(url: str) -> None:
    (reason,) = refused(a_claim(source=url), a_policy(sources=(FIREFOX, CENTRAL)))
    assert reason.startswith("tasks.sources: the task's metadata.source is ")
    assert '"https://github.com/mozilla-mobile/firefox-ios", "https://hg.mozilla.org/mozilla-central"' in reason


def test_the_whole_definition_must_be_as_its_schema_says() -> None:
    schema = CompiledSchema({"properties": {"priority": {"enum": ["highest"]}}, "required": ["priority"]})
    policy = a_policy(definition=schema)
    admitted(a_claim(verbatim={"priority": "highest"}), policy)
    assert refused(a_claim(verbatim={"priority": "low"}), policy) == [
        'tasks.definition: task.priority: found "low"; expected one of "highest"'
    ]
    assert refused(a_claim(verbatim={}), policy) == ["tasks.definition: task.priority: is missing"]


def denial(
    *scopes: str,
    schedulers: tuple[str, ...] = (),
    projects: tuple[str, ...] = (),
    definition: CompiledSchema | None = None,
) -> DenyRule:
    return DenyRule("not here", scopes, schedulers, projects, definition)


@pytest.mark.parametrize(
    ("rule", "denied"),
    [
        (denial("project:x:cert:nightly"), True),
        (denial("project:x:cert:*"), True),
        (denial("project:x:cert:release"), False),
        (denial(schedulers=("release",)), True),
        (denial(schedulers=("other",)), False),
        (denial(projects=("x",)), True),
        (denial(projects=("y",)), False),
        (denial("project:x:cert:nightly", projects=("x",)), True),
        (denial("project:x:cert:nightly", projects=("y",)), False),
        (denial(definition=CompiledSchema({"required": ["payload"]})), True),
        (denial(definition=CompiledSchema({"required": ["nothing"]})), False),
    ],
)
def test_a_task_that_fulfils_all_conditions_is_denied(rule: DenyRule, *, denied: bool) -> None:
    policy = a_policy(deny=(denial(schedulers=("never",)), rule))
    if denied:
        assert refused(a_claim(), policy) == ["tasks.deny[1]: not here"]
    else:
        admitted(a_claim(), policy)


def test_a_definition_that_a_denials_schema_cannot_follow_is_denied() -> None:
    chain: dict[str, Json] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(30)}
    schema = CompiledSchema({"$defs": {**chain, "d30": {"properties": {"a": {"$ref": "#"}}}}, "$ref": "#/$defs/d0"})
    nested: dict[str, Json] = {}
    for _ in range(60):
        nested = {"a": nested}
    assert "tasks.deny[0]" in refused(a_claim(verbatim=nested), a_policy(deny=(denial(definition=schema),)))[0]


SIGN = a_rule(when=PayloadEquals("action", "sign"), payload_schema=CompiledSchema({}))
PUSH = a_rule(name=ScriptName("push"), when=PayloadEquals("action", "push"), payload_schema=CompiledSchema({}))
KIND = a_rule(name=ScriptName("kind"), when=PayloadEquals("kind", "push"), payload_schema=CompiledSchema({}))


def test_a_key_of_the_payload_chooses_the_script() -> None:
    policy = a_policy(SIGN, PUSH, KIND)
    assert admitted(a_claim(scopes=(), payload={"action": "push"}), policy).script == "push"
    assert admitted(a_claim(scopes=(), payload={"kind": "push"}), policy).script == "kind"


@pytest.mark.parametrize("payload", [{}, {"action": "other"}, {"action": ["push"]}, {"action": None}])
def test_a_payload_that_chooses_no_script_is_refused(payload: dict[str, Json]) -> None:
    (reason,) = refused(a_claim(scopes=(), payload=payload), a_policy(SIGN, PUSH))
    assert reason.startswith("scripts: payload.action is ")
    assert reason.endswith("which chooses no script; the scripts here are chosen by action: sign, action: push")


def test_a_payload_that_chooses_two_scripts_is_refused() -> None:
    (reason,) = refused(a_claim(payload={"action": "push", "kind": "push"}), a_policy(SIGN, PUSH, KIND))
    assert "which chooses 2 scripts" in reason


RULE = a_rule(
    command=(Template("/opt/sign"), Template("--${payload.format}"), Template({"$eval": "payload['more']"})),
    requires_scopes=(Template("project:x:cert:${payload.cert}"), Template({"$eval": "payload['scopes']"})),
    config=Template({"cert": "${payload.cert}", "work_dir": {"$eval": "sandbox.work"}}),
    payload_schema=CompiledSchema({"properties": {"cert": {"type": "string"}}}),
)
PAYLOAD: dict[str, Json] = {"format": "gpg", "cert": "nightly"}


def test_arguments_scopes_and_config_come_from_the_payload() -> None:
    plan = admitted(a_claim(payload=PAYLOAD), a_policy(RULE))
    assert plan.argv == ("/opt/sign", "--gpg")
    assert plan.config == {
        "cert": "nightly",
        "verbose": False,
        "work_dir": "/task/work",
        "artifact_dir": "/task/artifacts",
    }
    more: dict[str, Json] = {"more": ["-a", "-b"], "scopes": ["project:x:cert:nightly"]}
    assert admitted(a_claim(payload=PAYLOAD | more), a_policy(RULE)).argv == ("/opt/sign", "--gpg", "-a", "-b")


def test_a_scope_that_the_payload_asks_for_must_be_the_tasks() -> None:
    (reason,) = refused(a_claim(payload=PAYLOAD | {"cert": "release"}), a_policy(RULE))
    assert 'needs the scope "project:x:cert:release"' in reason


@pytest.mark.parametrize(
    ("payload", "reasons"),
    [
        ({"cert": "nightly"}, ["scripts.sign.command[1]"]),
        (PAYLOAD | {"format": "a\x00b"}, ["scripts.sign.command[1]"]),
        (PAYLOAD | {"format": "\ud800"}, ["scripts.sign.command[1]"]),
        (PAYLOAD | {"format": "x" * 100_001}, ["scripts.sign.command[1]"]),
        (PAYLOAD | {"more": 5}, ["scripts.sign.command[2]"]),
        (PAYLOAD | {"more": [["x"]]}, ["scripts.sign.command[2]"]),
        (PAYLOAD | {"more": ["x" * 90_000] * 3}, ["scripts.sign.command"]),
        (PAYLOAD | {"scopes": "é"}, ["scripts.sign.requires-scopes[1]"]),
        (PAYLOAD | {"scopes": ""}, ["scripts.sign.requires-scopes[1]"]),
        ({"format": "gpg"}, ["scripts.sign.requires-scopes[0]", "scripts.sign.config"]),
        (PAYLOAD | {"cert": 5}, ["scripts.sign.payload"]),
    ],
)
def test_what_cannot_be_derived_is_a_refusal_with_its_key(payload: dict[str, Json], reasons: list[str]) -> None:
    found = refused(a_claim(payload=payload), a_policy(RULE))
    assert [reason.partition(": ")[0] for reason in found] == reasons


def test_a_config_that_becomes_no_object_is_a_refusal() -> None:
    rule = a_rule(config=Template({"$eval": "payload.format"}))
    assert refused(a_claim(), a_policy(rule)) == ['scripts.sign.config: it becomes "gpg", and an object is needed']


def test_what_does_not_depend_on_a_malformed_payload_is_looked_at_nevertheless() -> None:
    rule = a_rule(requires_scopes=(Template("project:x:cert:release"), Template("${payload.cert}")))
    found = refused(a_claim(payload={"format": 1}), a_policy(rule))
    assert [reason.partition(": ")[0] for reason in found] == ["scripts.sign.payload", "scripts.sign.requires-scopes"]
