"""Who a request to the embedded Taskcluster comes from, and what they may do."""

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import mohawk  # type: ignore[import-untyped]  # has no type information
import pytest
import taskcluster
from yarl import URL

from secureworker.core.claim import Secret
from secureworker.localqueue.settings import Role, StaticClient
from tests.localqueue.harness import A_WORKER, CREATOR, POOL, ROOT, WORKER, Checked, World, a_client, a_world

ISSUER = a_client("issuer", "secrets:get:a*", "auth:create-client:issued/*")


def _temporary(
    world: World,
    begin: float,
    end: float,
    *,
    name: str | None = "issued/one",
    scopes: tuple[str, ...] = ("secrets:get:a",),
) -> dict[str, str]:
    """Make temporary credentials with the official client; times are minutes from now."""
    now = world.clock()
    made = taskcluster.createTemporaryCredentials(
        ISSUER.client_id,
        ISSUER.access_token.reveal(),
        now + timedelta(minutes=begin),
        now + timedelta(minutes=end),
        list(scopes),
        name=name,
    )
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in made.items()}


async def _whoami(world: World, who: Mapping[str, str]) -> tuple[int, str]:
    answer = await world.ask(who, "currentScopes", service="Auth")
    return answer.status, "" if answer.status == 200 else answer.body["message"].partition("\n\n---")[0]


@pytest.fixture
async def issuing(checked: Checked | None) -> Any:
    async with a_world(checked, clients=(ROOT, ISSUER), hawk_skew=900.0) as world:
        yield world


@pytest.mark.parametrize(
    ("begin", "end", "status", "message"),
    [
        (0, 10, 200, ""),
        (4, 10, 200, ""),
        (6, 10, 401, "ext.certificate.start > now"),
        (-10, -4, 200, ""),
        (-10, -6, 401, "ext.certificate.expiry < now"),
    ],
)
async def test_a_certificate_is_good_within_its_times_and_five_minutes(
    issuing: World, begin: float, end: float, status: int, message: str
) -> None:
    assert await _whoami(issuing, _temporary(issuing, begin, end)) == (status, message)


async def test_unnamed_temporary_credentials_work_too(issuing: World) -> None:
    assert await _whoami(issuing, _temporary(issuing, 0, 10, name=None)) == (200, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scopes": ["secrets:get:ab"]}, "ext.certificate.signature is not valid, or wrong clientId provided"),
        ({"signature": "AAAA"}, "ext.certificate.signature is not valid, or wrong clientId provided"),
        ({"version": 2}, "ext.certificate.version must be 1"),
        ({"seed": "short"}, "ext.certificate.seed must be 44 characters"),
        ({"expiry": "soon"}, "ext.certificate.expiry must be a number"),
        ({"scopes": "all"}, "ext.certificate.scopes must be an array of valid scopes"),
        ({"scopes": ["ü"]}, "ext.certificate.scopes must be an array of valid scopes"),
        ({"expiry": 9 * 10**12}, "ext.certificate cannot last longer than 31 days!"),
        ({"issuer": "issued/one"}, "ext.certificate.issuer must differ from the supplied clientId"),
        ({"issuer": "nobody"}, "Client with clientId 'nobody' not found"),
    ],
)
async def test_a_changed_certificate_is_refused(issuing: World, change: dict[str, Any], message: str) -> None:
    credentials = _temporary(issuing, 0, 10)
    credentials["certificate"] = json.dumps(json.loads(credentials["certificate"]) | change)

    assert await _whoami(issuing, credentials) == (401, message)


async def test_a_certificate_gives_no_more_than_its_issuer_has(issuing: World) -> None:
    status, message = await _whoami(issuing, _temporary(issuing, 0, 10, scopes=("secrets:get:b",)))

    assert status == 401
    assert "doesn't satisfy all certificate scopes secrets:get:b" in message


async def test_a_certificate_names_only_clients_its_issuer_may_create(issuing: World) -> None:
    status, message = await _whoami(issuing, _temporary(issuing, 0, 10, name="project/other"))

    assert status == 401
    assert "auth:create-client:project/other" in message


@pytest.mark.parametrize("ext", ["!", base64.b64encode(b"[]").decode(), base64.b64encode(b"{").decode()])
async def test_an_ext_that_cannot_be_read_is_refused(world: World, ext: str) -> None:
    answer = await world.ask(ROOT, "currentScopes", service="Auth", signed={"ext": ext})

    assert (answer.status, answer.body["code"]) == (401, "AuthenticationFailed")


async def test_a_certificate_that_is_no_object_is_refused(world: World) -> None:
    answer = await world.ask(ROOT, "currentScopes", service="Auth", ext={"certificate": "text"})

    assert answer.status == 401


async def test_authorized_scopes_narrow_what_a_caller_has(world: World) -> None:
    answer = await world.ask(ROOT, "currentScopes", service="Auth", ext={"authorizedScopes": ["a:b", "a:*"]})
    beyond = await world.ask(A_WORKER, "currentScopes", service="Auth", ext={"authorizedScopes": ["a:b"]})
    wrong = await world.ask(ROOT, "currentScopes", service="Auth", ext={"authorizedScopes": "a"})

    assert "a:*" in answer.body["scopes"]
    assert "*" not in answer.body["scopes"]
    assert "assume:anonymous" in answer.body["scopes"]
    assert (beyond.status, wrong.status) == (401, 401)


async def test_everybody_has_the_anonymous_role(world: World) -> None:
    nobody = await world.ask(None, "currentScopes", service="Auth")
    worker = await world.ask(A_WORKER, "currentScopes", service="Auth")

    assert "assume:anonymous" in nobody.body["scopes"]
    assert set(nobody.body["scopes"]) < set(worker.body["scopes"])
    assert worker.body["scopes"] == sorted(worker.body["scopes"])


async def test_roles_are_expanded_through_roles(checked: Checked | None) -> None:
    roles = (Role("one", ("assume:two", "x:y")), Role("two", ("z:*",)), Role("three", ("never",)))
    everyone = (Role("anonymous", ("auth:expand-scopes",)),)
    async with a_world(checked, roles=roles + everyone) as world:
        payload = {"scopes": ["assume:one", "z:a"]}

        answer = await world.ask(None, "expandScopes", service="Auth", payload=payload)

    assert answer.body == {"scopes": ["assume:one", "assume:two", "x:y", "z:*"]}


@pytest.mark.parametrize(
    ("signed", "message"),
    [
        ({"method": "PUT"}, "Unauthorized: Bad mac"),
        ({"url": "http://127.0.0.1:1/api/auth/v1/scopes/current"}, "Unauthorized: Bad mac"),
        ({"_timestamp": 1000000000}, "Unauthorized: Stale timestamp"),
    ],
)
async def test_a_signature_is_for_one_request_at_one_time(world: World, signed: dict[str, Any], message: str) -> None:
    answer = await world.ask(ROOT, "currentScopes", service="Auth", signed=signed)

    assert answer.status == 401
    assert answer.body["message"].startswith(message)
    assert answer.headers["WWW-Authenticate"] == "hawk"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Bearer abc", "Unauthorized"),
        ("Hawk", "Bad Request: Missing attributes"),
        ('Hawk id="a"', "Bad Request: Missing attributes"),
        ('Hawk id="a", id="a"', "Bad Request: Bad header format"),
        ('Hawk wrong="a"', "Bad Request: Bad header format"),
        ("Hawk id=a", "Bad Request: Bad header format"),
        ('Hawk id="nobody", ts="1", nonce="n", mac="m"', "Client with clientId 'nobody' not found"),
    ],
)
async def test_a_header_that_is_not_hawks_is_refused(world: World, header: str, message: str) -> None:
    url = f"{world.root_url}/api/auth/v1/scopes/current"
    async with world.http.get(url, headers={"Authorization": header}) as response:
        body = await response.json()

    assert response.status == 401
    assert body["message"].partition("\n\n---")[0] == message


async def test_the_hash_of_a_payload_is_checked_where_it_is_sent(world: World) -> None:
    payload = {**WORKER, "tasks": 1}
    nothing = mohawk.base.EmptyValue

    wrong = await world.ask(A_WORKER, "claimWork", POOL, payload=payload, signed={"content": b"other"})
    absent = await world.ask(
        A_WORKER,
        "claimWork",
        POOL,
        payload=payload,
        signed={
            "content": nothing,
            "content_type": nothing,
            "always_hash_content": False,
        },
    )

    assert wrong.status == 401
    assert wrong.body["message"].startswith("Invalid payload hash: ")
    assert absent.status == 200


async def test_a_signed_url_stands_for_its_signer_until_it_expires(checked: Checked | None) -> None:
    async with a_world(checked, hawk_skew=900.0) as world:
        client = taskcluster.Auth(
            {
                "rootUrl": world.root_url,
                "credentials": {"clientId": ROOT.client_id, "accessToken": ROOT.access_token.reveal()},
            }
        )
        url = client.buildSignedUrl("currentScopes", expiration=60)
        good = await _fetch(world, url)
        posted = await _fetch(world, url.replace("current", "expand"), "POST")
        changed = await _fetch(world, url.replace("/current?", "/current?x=y&"))
        broken = await _fetch(world, url.partition("bewit=")[0] + "bewit=AAAA")
        garbage = await _fetch(world, url.partition("bewit=")[0] + "bewit=%%")
        world.clock.advance(61)
        late = await _fetch(world, url)

    assert good == (200, "")
    assert posted == (401, "Unauthorized: Invalid method")
    assert changed == (401, "Unauthorized: Bad mac")
    assert broken == (401, "Bad Request: Invalid bewit structure")
    assert garbage == (401, "Bad Request: Invalid bewit encoding")
    assert late == (401, "Unauthorized: Access expired")


async def _fetch(world: World, url: str, method: str = "GET") -> tuple[int, str]:
    data = b'{"scopes": []}' if method == "POST" else None
    async with world.http.request(method, URL(url, encoded=True), data=data) as response:
        body = await response.json()
        return response.status, body.get("message", "").partition("\n\n---")[0]


async def test_scopes_that_depend_on_the_url_are_asked_for_before_the_body_is_looked_at(world: World) -> None:
    task_id, _ = await world.claimed()

    answer = await world.ask(A_WORKER, "reportException", task_id, 0, payload={"reason": "because"})
    claim = await world.ask(CREATOR, "claimWork", POOL, payload={})

    assert (answer.status, claim.status) == (403, 400)


async def test_an_unknown_url_is_not_found(world: World) -> None:
    for path in ("/", "/api/queue/v1/nothing", "/api/other/v1/ping", "/api/queue/v2/ping", "/x/y"):
        async with world.http.get(world.root_url + path) as response:
            assert (response.status, await response.json()) == (404, {"error": "Not found"})


async def test_an_answer_is_indented_and_packed_where_that_is_accepted(world: World) -> None:
    task_id = await world.create(payload={"long": "x" * 1000})
    url = f"{world.root_url}/api/queue/v1/task/{task_id}"
    async with world.http.get(url, headers={"Accept-Encoding": "identity"}) as plain:
        text = await plain.text()
    async with world.http.get(url) as packed:
        unpacked = await packed.text()

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert text == unpacked == json.dumps(json.loads(text), indent=2)


async def test_a_body_that_is_too_large_is_refused(checked: Checked | None) -> None:
    async with a_world(checked, max_body_bytes=2000) as world:
        answer = await world.ask(
            ROOT, "createTask", taskcluster.slugId(), payload=world.a_task(payload={"x": "y" * 3000})
        )

    assert (answer.status, answer.body["code"]) == (413, "InputTooLarge")


@pytest.mark.parametrize("service", ["Auth", "Queue", "Object", "Secrets"])
async def test_every_service_says_that_it_lives(world: World, service: str) -> None:
    answers = {
        name: await world.ask(None, name, service=service) for name in ("ping", "lbheartbeat", "heartbeat", "version")
    }

    assert {answer.status for answer in answers.values()} == {200}
    assert answers["ping"].body["alive"] is True


async def test_no_secret_is_shown_by_the_settings() -> None:
    client = StaticClient("a", Secret("s3cret"), ())

    assert "s3cret" not in repr(client)


async def test_a_host_without_a_port_is_signed_with_port_eighty(world: World) -> None:
    sender = mohawk.Sender(
        {"id": ROOT.client_id, "key": ROOT.access_token.reveal(), "algorithm": "sha256"},
        "http://localhost/api/auth/v1/scopes/current",
        "GET",
        content="",
        content_type="",
    )
    headers = {"Host": "localhost", "Authorization": sender.request_header}

    async with world.http.get(f"{world.root_url}/api/auth/v1/scopes/current", headers=headers) as response:
        assert response.status == 200
