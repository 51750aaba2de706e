"""Parts of the embedded Taskcluster that can be wrong by themselves, and the harness that holds it to its schemas."""

import base64
from datetime import UTC, datetime
from typing import Any

import mohawk  # type: ignore[import-untyped]  # has no type information
import pytest
import taskcluster
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.claim import Credentials, Secret
from secureworker.core.scopes import satisfies
from secureworker.localqueue import hawk, times, validation
from secureworker.localqueue.calls import parse_payload
from secureworker.localqueue.credentials import wire
from secureworker.localqueue.errors import ApiError
from secureworker.localqueue.expressions import expand, missing, normalize, substitute
from secureworker.localqueue.schemas import SCHEMAS
from secureworker.localqueue.settings import Role, Settings
from tests.localqueue.harness import POOL, ROOT, WORKER, Checked, References, World, stamp

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SCOPES = st.text("ab:*", max_size=5)
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\'), min_size=1, max_size=30)


def test_times_are_by_default_those_of_the_real_services() -> None:
    settings = Settings(clients=())

    assert (settings.claim_timeout, settings.long_poll, settings.hint_interval) == (1200, 20, 1)
    assert (settings.claim_resolver_interval, settings.deadline_delay, settings.certificate_drift) == (5, 60, 300)
    assert (settings.put_url_lifetime, settings.get_url_lifetime, settings.late_artifacts) == (2700, 1800, 1500)


@pytest.mark.parametrize(
    ("text", "postgresql", "seconds"),
    [
        ("2026-11-23T12:13:14.294Z", "2026-11-23T12:13:14.294+00:00", "1795435994.294"),
        ("2026-11-23T11:45:34.970Z", "2026-11-23T11:45:34.97+00:00", "1795434334.97"),
        ("2026-11-23T11:45:34.000Z", "2026-11-23T11:45:34+00:00", "1795434334"),
        ("2026-11-23T11:45:30.000Z", "2026-11-23T11:45:30+00:00", "1795434330"),
        ("0001-01-01T00:00:00.000Z", "0001-01-01T00:00:00+00:00", "-62135596800"),
        ("2026-11-23T11:45:34.009Z", "2026-11-23T11:45:34.009+00:00", "1795434334.009"),
    ],
)
def test_a_time_has_three_forms(text: str, postgresql: str, seconds: str) -> None:
    moment = times.parse(text)

    assert times.javascript(moment) == text
    assert times.postgresql(moment) == postgresql
    assert times.epoch_seconds(moment) == seconds
    assert times.from_milliseconds(times.milliseconds(moment)) == moment


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("2026-11-23T12:13:14Z", True),
        ("2026-11-23T12:13:14.123456+02:00", True),
        ("2026-11-23T12:13:14", False),
        ("2026-02-30T12:13:14Z", False),
        ("9999-12-31T23:59:59-12:00", False),
        ("0001-01-01T00:00:00Z", True),
        ("2026-11-23", False),
        ("soon", False),
    ],
)
def test_a_time_has_a_date_and_an_offset(text: str, good: bool) -> None:  # noqa: FBT001 a table's column
    assert times.is_date_time(text) is good


def test_a_slug_is_one_for_the_schemas() -> None:
    for _ in range(50):
        validation.check("queue/v1/finish-artifact-request.json#", {"uploadId": times.slugid()}, "")


@given(st.lists(SCOPES), SCOPES)
def test_a_normalized_set_grants_the_same(scopes: list[str], asked: str) -> None:
    kept = normalize(scopes)

    assert satisfies(kept, asked) == satisfies(scopes, asked)
    assert not [one for one in kept for other in kept if one != other and satisfies((other,), one)]


def test_roles_may_stand_for_each_other() -> None:
    roles = (Role("a", ("assume:b", "x")), Role("b", ("assume:a", "y")))

    assert expand(("assume:a",), roles) == ("assume:a", "assume:b", "x", "y")
    assert expand(("assume:*",), roles) == ("assume:*", "x", "y")
    assert expand(("assume",), roles) == ("assume",)


@pytest.mark.parametrize(
    ("assumed", "given"),
    [
        ("assume:repo:x", ("read:x:all", "see:x")),
        ("assume:repo:", ("read::all", "see:")),
        ("assume:repo", ()),
        ("assume:rep:x", ()),
        ("repo:x", ()),
        ("assume:repo:x*", ("read:x*", "see:x*")),
        ("assume:repo:*", ("read:*", "see:*")),
        ("assume:re*", ("read:*", "see:*")),
        ("assume:*", ("read:*", "see:*")),
        ("as*", ("read:*", "see:*")),
        ("*", ()),
    ],
)
def test_a_role_for_all_names_that_begin_so_gives_scopes_with_the_rest_of_the_name(
    assumed: str, given: tuple[str, ...]
) -> None:
    assert expand((assumed,), (Role("repo:*", ("read:<..>:all", "see:<..>")),)) == normalize((assumed, *given))


def test_a_name_goes_on_through_roles() -> None:
    roles = (
        Role("repo:*", ("assume:project:<..>", "all:repos")),
        Role("project:*", ("build:<..>",)),
        Role("project:x", ("special:<..>",)),
        Role("other:*", ("never:<..>",)),
    )
    assert expand(("assume:repo:x",), roles) == (
        "all:repos",
        "assume:project:x",
        "assume:repo:x",
        "build:x",
        "special:<..>",
    )


def test_roles_that_lead_to_themselves_come_to_an_end() -> None:
    assert "assume:aaax" in expand(("assume:ax",), (Role("a*", ("assume:aa<..>",)), Role("b", ())))


@pytest.mark.parametrize("scope", ["a:<..>:<..>", "a:*<..>"])
def test_a_parameter_that_would_be_ambiguous_is_refused(scope: str) -> None:
    assert Role("a", (scope,)).scopes == (scope,)
    with pytest.raises(ValueError, match="ambiguous"):
        Role("a*", (scope,))


def test_what_is_missing_is_what_is_left_of_the_expression() -> None:
    expression = {"AllOf": ["a", {"AnyOf": ["b", {"AllOf": ["c", "d"]}]}]}

    assert missing(("a", "b"), expression) is None
    assert missing(("a", "c", "d"), expression) is None
    assert missing(("a", "c"), expression) == {"AnyOf": ["b", "d"]}
    assert missing(("b",), expression) == "a"
    assert missing((), expression) == {"AllOf": ["a", {"AnyOf": ["b", {"AllOf": ["c", "d"]}]}]}
    assert missing((), {"AllOf": []}) is None
    assert substitute({"AnyOf": ["x:<y>"]}, {"y": "<z>"}) == {"AnyOf": ["x:<z>"]}


@given(key=VISIBLE, client=VISIBLE, path=st.text("abc/%25?&=.", max_size=20), payload=st.binary(max_size=50))
def test_what_mohawk_signs_is_accepted_and_nothing_else(key: str, client: str, path: str, payload: bytes) -> None:
    sender = mohawk.Sender(
        {"id": client, "key": key, "algorithm": "sha256"},
        f"http://localhost:8080/{path.partition('?')[0]}",
        "POST",
        content=payload,
        content_type="application/json",
        ext="ext",
        _timestamp=int(NOW.timestamp()),
    )
    header = hawk.parse_header(sender.request_header)
    signed = hawk.Signed("POST", f"/{path.partition('?')[0]}", "localhost:8080")

    hawk.check_header(signed, header, key, NOW, 60)
    hawk.check_payload(header.payload_hash, "application/json; charset=utf-8", payload)
    with pytest.raises(ApiError, match="Bad mac"):
        hawk.check_header(signed, header, key + "x", NOW, 60)
    with pytest.raises(ApiError, match="Invalid payload hash"):
        hawk.check_payload(header.payload_hash, "application/json", payload + b" ")


def test_a_delegated_request_is_signed_with_its_application() -> None:
    header = hawk.parse_header('Hawk id="a", ts="1", nonce="n", mac="m", app="b", dlg="c"')
    signed = hawk.Signed("GET", "/", "localhost")

    assert (header.app, header.delegated_by) == ("b", "c")
    with pytest.raises(ApiError, match="Bad mac"):
        hawk.check_header(signed, header, "key", NOW, 60)


@pytest.mark.parametrize("query", ["?a=b", "", "?a=b&c=d"])
def test_a_bewit_is_found_anywhere_in_a_query(query: str) -> None:
    signed = hawk.Signed("GET", f"/path{query}", "localhost:1")
    bewit = hawk.make_bewit(signed, "client", "key", "", NOW)
    whole = f"/path{query}{'&' if query else '?'}bewit={bewit}"
    first = f"/path?bewit={bewit}{query.replace('?', '&')}"

    for resource in (whole, first):
        found = hawk.parse_bewit(resource)
        assert found is not None
        assert (found.client_id, found.resource) == ("client", f"/path{query}")
        hawk.check_bewit(signed, found, "key", datetime(2026, 11, 23, 11, tzinfo=UTC))


@pytest.mark.parametrize(
    ("schema", "payload", "errors"),
    [
        ("queue/v1/claim-work-request.json#", [], ["data must be object"]),
        ("queue/v1/claim-work-request.json#", None, ["data must be object"]),
        (
            "queue/v1/claim-work-request.json#",
            {"workerGroup": "", "workerId": "a b" * 20, "tasks": 33},
            [
                "data/workerGroup must NOT have fewer than 1 characters",
                "data/workerId must NOT have more than 38 characters",
                'data/workerId must match pattern "^([a-zA-Z0-9-_]*)$"',
                "data/tasks must be <= 32",
            ],
        ),
        (
            "auth/v1/scopeset.json#",
            {"scopes": ["a", "a"]},
            ["data/scopes must NOT have duplicate items"],
        ),
        (
            "secrets/v1/secret.json#",
            {"secret": {}, "expires": "soon"},
            ['data/expires must match format "date-time"'],
        ),
        (
            "object/v1/download-object-request.json#",
            {"acceptDownloadMethods": {"simple": False}},
            ["data/acceptDownloadMethods/simple must be equal to constant"],
        ),
    ],
)
def test_a_malformed_payload_is_told_all_that_is_wrong(schema: str, payload: Any, errors: list[str]) -> None:
    with pytest.raises(ApiError) as refusal:
        validation.check(schema, validation.with_defaults(schema, payload), "ROOT")

    listed = [line.removeprefix("  * ") for line in refusal.value.message.splitlines() if line.startswith("  * ")]
    assert listed == errors
    assert f"Rejecting Schema: ROOT/schemas/{schema}\n" in refusal.value.message


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://localhost/a?b=c#d", True),
        ("urn:x:y", True),
        ("/path", False),
        ("http://[", False),
        ("http://a b/", False),
        ("", False),
    ],
)
def test_a_reference_has_an_absolute_url(url: str, good: bool) -> None:  # noqa: FBT001 a table's column
    payload = {"storageType": "reference", "url": url, "contentType": "a/b", "expires": times.javascript(NOW)}

    assert _accepted("queue/v1/post-artifact-request.json#", payload) is good


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"{nope", "Expected property name or '}' in JSON at position 1 (line 1 column 2)"),
        (b"{}\n{", "Extra data in JSON at position 3 (line 2 column 1)"),
    ],
)
def test_a_payload_that_is_no_json_is_told_why(raw: bytes, message: str) -> None:
    with pytest.raises(ApiError) as refusal:
        parse_payload(raw)

    assert refusal.value.message == f"Failed to parse JSON: {message}"


def test_credentials_without_a_certificate_are_sent_without_one() -> None:
    assert wire(Credentials("me", Secret("token"))) == {"clientId": "me", "accessToken": "token"}


# The harness


@pytest.mark.references
def test_the_schemas_of_requests_are_the_published_ones(references: References) -> None:
    """Each of ours takes what theirs takes, on payloads that each breaks one rule of."""
    created = {"created": "2026-11-23T12:00:00Z", "deadline": "2026-11-23T12:00:00Z", "payload": {}}
    metadata = {"name": "n", "description": "d", "owner": "o", "source": "https://s"}
    good: dict[str, dict[str, Any]] = {
        "queue/v1/create-task-request.json#": {
            **created,
            "metadata": metadata,
            "scopes": ["a"],
            "routes": ["a"],
            "tags": {"a": "b"},
            "extra": {},
            "dependencies": [times.slugid()],
            "requires": "all-resolved",
            "priority": "high",
            "retries": 49,
            "provisionerId": "a_-",
            "workerType": "a-b",
            "taskQueueId": "a/b",
            "schedulerId": "a",
            "projectId": "a/b",
            "taskGroupId": times.slugid(),
            "expires": "2026-11-23T12:00:00Z",
        },
        "queue/v1/claim-work-request.json#": {**WORKER, "tasks": 32},
        "queue/v1/task-exception-request.json#": {"reason": "internal-error"},
        "queue/v1/finish-artifact-request.json#": {"uploadId": times.slugid()},
        "queue/v1/quarantine-worker-request.json#": {"quarantineUntil": "2026-11-23T12:00:00Z", "quarantineInfo": "x"},
        "object/v1/create-upload-request.json#": {
            "projectId": "a",
            "uploadId": times.slugid(),
            "expires": "2026-11-23T12:00:00Z",
            "hashes": {"sha256": "0" * 64, "other": "x"},
            "proposedUploadMethods": {},
        },
        "object/v1/finish-upload-request.json#": {"projectId": "a", "uploadId": times.slugid()},
        "object/v1/download-object-request.json#": {"acceptDownloadMethods": {"simple": True}},
        "secrets/v1/secret.json#": {"secret": {}, "expires": "2026-11-23T12:00:00Z"},
        "auth/v1/scopeset.json#": {"scopes": ["a*"]},
        "worker-manager/v1/register-worker-request.json#": {
            "workerPoolId": "a/b",
            "providerId": "static",
            "workerGroup": "g",
            "workerId": "w",
            "systemBootTime": "2026-11-23T12:00:00Z",
            "workerIdentityProof": {"staticSecret": "s" * 44},
        },
        "worker-manager/v1/reregister-worker-request.json#": {
            "workerPoolId": "a/b",
            "workerGroup": "g",
            "workerId": "w",
            "secret": "s" * 44,
        },
        "worker-manager/v1/report-worker-error-request.json#": {
            "workerGroup": "g",
            "workerId": "w",
            "kind": "worker-error",
            "title": "t",
            "description": "d",
            "extra": {},
        },
    }
    wrong: tuple[Any, ...] = ("", "ü ", "a" * 40000, 0, -1, 1000, 1.5, True, None, [], ["a", "a"], [1], {}, {"a": 1})
    assert set(good) | {"queue/v1/post-artifact-request.json#"} == set(SCHEMAS)
    for schema, payload in good.items():
        changed: list[Any] = [payload, {**payload, "unknown": 1}, [], None]
        for key in payload:
            changed.append({name: value for name, value in payload.items() if name != key})
            changed += [{**payload, key: value} for value in wrong]
        for candidate in changed:
            _agree(references, schema, candidate)


@pytest.mark.references
@pytest.mark.parametrize(
    "artifact",
    [
        {"storageType": "s3", "contentType": "a/b", "contentLength": 1},
        {"storageType": "object", "contentType": "a/b"},
        {"storageType": "reference", "contentType": "a/b", "url": "http://localhost/"},
        {"storageType": "link", "artifact": "public/a"},
        {"storageType": "error", "reason": "too-large-file-on-worker", "message": "m"},
    ],
)
def test_the_schema_of_an_artifact_is_the_published_one(references: References, artifact: dict[str, Any]) -> None:
    whole = {**artifact, "expires": "2026-11-23T12:00:00Z"}
    _agree(references, "queue/v1/post-artifact-request.json#", whole)
    for key in whole:
        without = {name: value for name, value in whole.items() if name != key}
        _agree(references, "queue/v1/post-artifact-request.json#", without)
        wrong: tuple[Any, ...] = ("other", 1, -1, None, {})
        for value in wrong:
            _agree(references, "queue/v1/post-artifact-request.json#", {**whole, key: value})


def _agree(references: References, schema: str, payload: Any) -> None:
    service, _, rest = schema.partition("/")
    theirs = not references.problems(service, rest, payload)
    assert _accepted(schema, payload) is theirs, (schema, str(payload)[:2000])


def _accepted(schema: str, payload: Any) -> bool:
    try:
        validation.check(schema, payload, "")
    except ApiError:
        return False
    return True


@pytest.mark.references
async def test_an_answer_that_does_not_fit_its_schema_is_noticed(references: References) -> None:
    assert references.problems("queue", "v1/task-status-response.json#", {"status": {}})
    assert references.problems("queue", "v1/claim-work-response.json#", {"tasks": [], "more": 1})
    assert not references.problems("queue", "v1/claim-work-response.json#", {"tasks": []})


@pytest.mark.references
async def test_every_endpoint_is_answered_as_its_schema_says(world: World, checked: Checked) -> None:
    task_id, credentials = await world.claimed()
    again = await world.create(dependencies=[task_id])
    until = stamp(world.clock().replace(year=world.clock().year + 1))
    created = await world.artifact(credentials, task_id, "public/a", storageType="object")
    target = created.body
    upload = {key: target[key] for key in ("projectId", "uploadId")}
    inline = {"dataInline": {"contentType": "a/b", "objectData": base64.b64encode(b"x").decode()}}
    body = {**upload, "expires": target["expires"], "proposedUploadMethods": inline}
    await world.ask(ROOT, "createUpload", target["name"], payload=body, service="Object")
    await world.ask(ROOT, "finishUpload", target["name"], payload=upload, service="Object")
    done = {"uploadId": target["uploadId"]}
    await world.ask(credentials, "finishArtifact", task_id, 0, "public/a", payload=done)
    start = {"acceptDownloadMethods": {"simple": True}}
    await world.ask(ROOT, "startDownload", target["name"], payload=start, service="Object")
    for name in ("object", "download"):
        await world.ask(ROOT, name, target["name"], service="Object")
    for name in ("getArtifact", "artifact", "artifactInfo"):
        await world.ask(None, name, task_id, 0, "public/a")
    for name in ("getLatestArtifact", "latestArtifact", "latestArtifactInfo"):
        await world.ask(None, name, task_id, "public/a")
    await world.ask(None, "listArtifacts", task_id, 0)
    for name in ("task", "status", "listTaskGroup", "getTaskGroup", "listDependentTasks", "listLatestArtifacts"):
        await world.ask(None, name, task_id)
    await world.ask(None, "pendingTasks", POOL)
    await world.ask(credentials, "reclaimTask", task_id, 0)
    twice = [await world.ask(credentials, "reportCompleted", task_id, 0) for _ in range(2)]
    await world.ask(ROOT, "scheduleTask", again)
    (claim,) = await world.claim()
    await world.ask(claim["credentials"], "reportException", again, 0, payload={"reason": "intermittent-task"})
    (claim,) = await world.claim()
    await world.ask(claim["credentials"], "reportFailed", again, 1)
    await world.ask(ROOT, "rerunTask", again)
    await world.ask(ROOT, "cancelTask", again)
    path = (*POOL.split("/"), WORKER["workerGroup"], WORKER["workerId"])
    await world.ask(None, "getWorker", *path)
    await world.ask(ROOT, "quarantineWorker", *path, payload={"quarantineUntil": until})
    await world.ask(ROOT, "set", "a", payload={"secret": {}, "expires": until}, service="Secrets")
    for name, params in (("get", ("a",)), ("list", ()), ("remove", ("a",))):
        await world.ask(ROOT, name, *params, service="Secrets")
    await world.ask(None, "currentScopes", service="Auth")
    await world.ask(None, "expandScopes", payload={"scopes": []}, service="Auth")
    for service in ("Auth", "Queue", "Object", "Secrets"):
        for name in ("ping", "version", "lbheartbeat", "heartbeat"):
            await world.ask(None, name, service=service)

    assert [answer.status for answer in twice] == [200, 200]
    assert len(checked.answered) == 54
    assert not checked.problems
    assert taskcluster.Queue.funcinfo.keys() > {name.partition(".")[2] for name in checked.answered if "queue" in name}
