"""Where decision tasks say they come from: of good form, of the policy, or refused."""

from dataclasses import replace
from typing import Any

import pytest

from secureworker.core.claim import Json
from secureworker.core.ids import TaskId
from secureworker.core.origin import NoOrigin, Origin, TracedRepository, TraceRule, make_context, read_origin
from secureworker.core.website import Question, Website

REPOSITORY = TracedRepository("https", "github.com", "us", "app", "/srv/app.git", ("main", "release/*"), "APP")
RULE = TraceRule(("p/decision",), (REPOSITORY,), 5)
TASK = TaskId("ddVaxIRdRAaAAr5ryHnORA")
REVISION = "ab" * 20
CRON: dict[str, Json] = {"task_id": "a", "job_name": "nightly", "job_symbol": "N", "quoted_args": "--x=y"}


def a_decision(kind: Json = "github-push", owner: Json = "dev@example.com", **variables: Json) -> dict[str, Any]:
    environment = {
        "APP_HEAD_REPOSITORY": "https://github.com/us/app",
        "APP_HEAD_REF": "refs/heads/main",
        "APP_HEAD_REV": REVISION,
        **{f"APP_{key}": value for key, value in variables.items()},
    }
    return {
        "created": "2026-01-31T12:00:00.123Z",
        "payload": {"env": environment},
        "metadata": {"owner": owner},
        "extra": {"tasks_for": kind, "cron": CRON},
    }


def context(definition: dict[str, Any]) -> dict[str, Any]:
    return make_context(read_origin(definition, RULE), TASK, definition, "https://tc")


def test_a_repository_is_read_in_one_place() -> None:
    asked = Question("https://api/{branch}/{revision}", "status", ("behind",))
    site = replace(REPOSITORY, mirror="", website=Website("https://raw/{revision}", asked, None))
    assert REPOSITORY.place == "/srv/app.git"
    assert site.place == "https://raw/{revision}; https://api/{branch}/{revision} says status: behind"


def test_an_origin_is_read() -> None:
    origin = Origin(REPOSITORY, REVISION, "refs/heads/main", "github-push", REPOSITORY.url)
    assert read_origin(a_decision(), RULE) == origin
    assert read_origin(a_decision(HEAD_REF="main"), RULE) == origin
    assert read_origin(a_decision(HEAD_REF="release/1"), RULE).ref == "refs/heads/release/1"
    assert read_origin(a_decision("github-release", HEAD_REF="v1"), RULE).ref == "refs/tags/v1"


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        (a_decision("github-pull-request"), "extra.tasks_for is"),
        (a_decision(None), "extra.tasks_for is"),
        ({}, "extra.tasks_for is"),
        (a_decision(HEAD_REPOSITORY="https://github.com/them/app"), "names no repository"),
        (a_decision(HEAD_REPOSITORY="git@github.com:them/app.git"), "names no repository"),
        (a_decision(HEAD_REPOSITORY="git@evil.example.com:us/app.git"), "names no repository"),
        (a_decision(HEAD_REPOSITORY=["https://github.com/us/app"]), "names no repository"),
        (a_decision(HEAD_REV="main"), "APP_HEAD_REV is"),
        (a_decision(HEAD_REV=None), "APP_HEAD_REV is"),
        (a_decision(HEAD_REV=REVISION + "\n"), "APP_HEAD_REV is"),
        (a_decision(HEAD_REF="$(id)"), "APP_HEAD_REF is"),
        (a_decision(HEAD_REF=None), "APP_HEAD_REF is"),
        (a_decision(HEAD_REF="release/../../x"), "APP_HEAD_REF is"),
        (a_decision(HEAD_REF="release//x"), "APP_HEAD_REF is"),
        (a_decision(HEAD_REF="release/.x"), "APP_HEAD_REF is"),
        (a_decision(HEAD_REF="ma\u0456n"), "APP_HEAD_REF is"),
        (a_decision(HEAD_REF="main?x"), "APP_HEAD_REF is"),
        (a_decision(HEAD_REF="main%2F"), "APP_HEAD_REF is"),
        (a_decision(HEAD_REPOSITORY="https://github.com/us/app/"), "names no repository"),
        (a_decision(HEAD_REPOSITORY="https://github.com/us/\u0430pp"), "names no repository"),
        (a_decision(HEAD_REF="refs/pull/1/head"), "APP_HEAD_REF is"),
        (a_decision(HEAD_REF="try"), "is no branch that tasks may come from"),
        (a_decision(HEAD_REF="refs/tags/v1"), "none of those"),
        (a_decision("github-release"), "none of those"),
    ],
)
def test_what_is_no_origin_is_refused(definition: dict[str, Json], why: str) -> None:
    with pytest.raises(NoOrigin, match=why):
        read_origin(definition, RULE)


def test_a_push_is_told_as_github_does() -> None:
    made = context(a_decision(BASE_REV="1" * 40))
    event = made["event"]
    assert (made["tasks_for"], made["now"], made["taskcluster_root_url"]) == (
        "github-push",
        "2026-01-31T12:00:00.123Z",
        "https://tc",
    )
    assert (event["ref"], event["before"], event["after"]) == ("refs/heads/main", "1" * 40, REVISION)
    assert event["repository"]["full_name"] == "us/app"
    assert event["pusher"] == {"name": "dev", "email": "dev@example.com"}


def test_a_task_may_name_its_repository_as_git_over_ssh_does() -> None:
    ssh = "git@github.com:us/app.git"
    by_ssh = a_decision("cron", HEAD_REPOSITORY=ssh)
    assert read_origin(by_ssh, RULE).named == ssh
    assert context(by_ssh)["repository"]["url"] == ssh
    assert context(a_decision("cron"))["repository"]["url"] == "https://github.com/us/app"
    assert context(a_decision(HEAD_REPOSITORY=ssh))["event"]["repository"]["ssh_url"] == ssh
    nameless = TracedRepository("https", "hg.example.com", "", "app", "/srv/app", ("main",), "APP")
    assert (nameless.url, nameless.ssh_url) == ("https://hg.example.com/app", "git@hg.example.com:app.git")


def test_the_login_of_a_hidden_address_is_known() -> None:
    assert context(a_decision(owner="dev@users.noreply.github.com"))["event"]["sender"] == {"login": "dev"}


def test_a_release_and_cron_are_told() -> None:
    assert context(a_decision("github-release", HEAD_REF="v1"))["event"]["release"]["tag_name"] == "v1"
    made = context(a_decision("cron"))
    assert (made["cron"], made["ownTaskId"], made["push"]["branch"]) == (CRON, TASK, "main")


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        (a_decision(owner="$(id)@example.com"), "metadata.owner is"),
        (a_decision(owner=None), "metadata.owner is"),
        (a_decision(BASE_REV="; id"), "APP_BASE_REV is"),
        ({**a_decision(), "created": "now"}, "created: "),
        ({**a_decision("cron"), "extra": {"tasks_for": "cron"}}, "extra.cron.task_id is"),
        (
            {**a_decision("cron"), "extra": {"tasks_for": "cron", "cron": {**CRON, "quoted_args": "; id"}}},
            "extra.cron.quoted_args is",
        ),
    ],
)
def test_nothing_that_a_shell_understands_gets_into_a_rendering(definition: dict[str, Any], why: str) -> None:
    with pytest.raises(NoOrigin, match=why):
        context(definition)
