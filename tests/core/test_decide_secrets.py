"""A script's secrets, in decisions and plans: names and places only, and no more than the task may read."""

from dataclasses import replace
from typing import Any

import pytest

from secureworker.core.decide import Admitted, decide
from secureworker.core.outcome import Refused
from secureworker.core.policy import SecretRule
from secureworker.core.secrets import HostFile, SecretFile, SystemdCredential, TaskclusterSecret
from tests.core.claims import ME, NOW, SCOPES, a_claim, a_policy, a_rule

SECRET = "secrets:get:project/x/autograph"
RULE = a_rule(secrets=(SecretRule("password", "taskcluster:project/x/autograph#password"),))


def decided(rule: Any, *scopes: str) -> Admitted | Refused:
    policy = a_policy(rule, scopes_allow=("project:x:*", "secrets:get:project/x/*"))
    return decide(a_claim(scopes=(*SCOPES, *scopes)), policy, ME, NOW)


def test_a_plan_names_the_places_of_its_secrets() -> None:
    rule = a_rule(secrets=(SecretRule("a", "credential:autograph"), SecretRule("b", "file:/etc/releng/key")))
    decision = decided(rule)
    assert isinstance(decision, Admitted)
    assert decision.plan.secrets == (
        SecretFile("a", SystemdCredential("autograph")),
        SecretFile("b", HostFile("/etc/releng/key")),
    )


@pytest.mark.parametrize("scope", [SECRET, "secrets:get:project/x/*"])
def test_a_task_that_may_read_the_secret_has_it_given_to_its_script(scope: str) -> None:
    decision = decided(RULE, scope)
    assert isinstance(decision, Admitted)
    assert decision.plan.secrets == (SecretFile("password", TaskclusterSecret("project/x/autograph", "password")),)


@pytest.mark.parametrize("scopes", [(), ("secrets:get:project/x/other",), ("secrets:get:project/x/autograph-2",)])
def test_a_task_that_may_not_read_the_secret_is_refused(scopes: tuple[str, ...]) -> None:
    decision = decided(RULE, *scopes)
    assert isinstance(decision, Refused)
    assert [reason.rule for reason in decision.reasons] == ["scripts.sign.secrets.password"]
    assert f'takes the scope "{SECRET}"' in decision.reasons[0].message


def test_secrets_of_the_host_take_no_scope_of_the_task() -> None:
    rule = a_rule(secrets=(SecretRule("a", "credential:autograph"), SecretRule("b", "file:/etc/key")))
    assert isinstance(decided(rule), Admitted)


@pytest.mark.parametrize("source", ["hunter2", "credential:../x", "file:relative", "taskcluster:"])
def test_a_rule_with_a_place_that_is_none_cannot_be_made(source: str) -> None:
    with pytest.raises(ValueError, match=r"needs|comes from"):
        SecretRule("a", source)
    with pytest.raises(ValueError, match=r"needs|comes from"):
        replace(RULE.secrets[0], source=source)
