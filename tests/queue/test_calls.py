"""Calls of a service: retries, bounds, and errors that are ours."""

import asyncio
import gzip

import pytest
from aiohttp import web

from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import AccessDenied, Defect, ServiceError
from secureworker.queue.calls import Refused
from secureworker.queue.claiming import LIMITS
from tests.queue.scripted import CREDENTIALS, Scripted, error, no_content, reset, stall, text


async def ping(server: Scripted, attempts: int = 5, seconds: float = 5) -> dict[str, object]:
    return dict(await server.calls.make("ping", lambda: CREDENTIALS, timeout=seconds, attempts=attempts))


async def test_an_answer_is_given_as_it_is(server: Scripted) -> None:
    server.then({"alive": True})
    assert await ping(server) == {"alive": True}
    assert server.clients == ["a-client"]


@pytest.mark.parametrize("nothing", [no_content(), text("null", "application/json"), text("", "application/json")])
async def test_no_content_is_an_empty_answer(server: Scripted, nothing: object) -> None:
    server.then(nothing)
    assert await ping(server) == {}


@pytest.mark.parametrize(
    "trouble", [error(500), error(502), error(503), error(429), text("<h1>Bad gateway", status=502)]
)
async def test_what_may_pass_is_tried_again_after_a_pause_that_grows(server: Scripted, trouble: object) -> None:
    server.then(trouble, trouble, trouble, {"alive": True})
    assert await ping(server) == {"alive": True}
    assert server.clock.slept == [0.2, 1.0, 3.0]


async def test_a_connection_that_breaks_is_made_again(server: Scripted) -> None:
    server.then(reset(), reset(), reset(), {"alive": True})
    assert await ping(server) == {"alive": True}


async def test_a_service_that_stays_broken_is_given_up_with_its_own_words(server: Scripted) -> None:
    server.then(error(503, "the database is away"))
    with pytest.raises(ServiceError, match=r"ping: 503: .*tried 5 times"):
        await ping(server)
    assert len(server.asked) == 5


async def test_a_service_that_does_not_answer_is_given_up_in_time(server: Scripted) -> None:
    server.then(stall())
    with pytest.raises(ServiceError, match=r"no answer within 0\.05 s"):
        await ping(server, attempts=2, seconds=0.05)


async def test_a_service_that_is_not_there_is_said_to_be_unreachable(server: Scripted) -> None:
    server.then(reset())
    with pytest.raises(ServiceError, match=r"no connection \(ServerDisconnectedError"):
        await ping(server, attempts=1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 424])
async def test_what_will_not_pass_is_not_tried_again(server: Scripted, status: int) -> None:
    server.then(error(status, "you may not"))
    with pytest.raises(Refused, match=f"ping: {status}: you may not$") as caught:
        await ping(server)
    assert caught.value.status == status
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "ours"), [(401, AccessDenied), (403, AccessDenied), (400, Defect), (418, Defect)])
def test_a_refusal_is_one_of_our_errors(status: int, ours: type[Exception]) -> None:
    assert type(Refused("ping", status, "no").as_ours()) is ours


@pytest.mark.parametrize(
    "nonsense",
    [
        text("<h1>Welcome to nginx"),
        text("[]", "application/json"),
        text('"yes"', "application/json"),
        text("{", "application/json"),
        text('{"a": NaN}', "application/json"),
    ],
)
async def test_nonsense_is_an_error_of_the_service(server: Scripted, nonsense: object) -> None:
    server.then(nonsense)
    with pytest.raises(ServiceError, match="something else than a JSON object"):
        await ping(server, attempts=1)


async def test_bytes_that_are_no_text_are_an_error_of_the_service(server: Scripted) -> None:
    async def garbage(_: web.Request) -> web.Response:
        return web.Response(body=b"\xff\xfe\xff{", content_type="application/json", charset="utf-8")

    server.then(garbage)
    with pytest.raises(ServiceError, match="cannot be read"):
        await ping(server, attempts=1)


async def test_a_body_that_ends_early_is_an_error_of_the_service(server: Scripted) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"alive":')
        assert request.transport is not None
        request.transport.close()
        return response

    server.then(cut)
    with pytest.raises(ServiceError, match="no connection"):
        await ping(server, attempts=1)


async def test_an_answer_without_end_is_not_read_to_its_end(server: Scripted) -> None:
    async def bomb(_: web.Request) -> web.Response:
        packed = gzip.compress(bytes(LIMITS.answer_bytes + 10_000_000), compresslevel=1)
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(body=packed, headers=headers)

    server.then(bomb)
    with pytest.raises(ServiceError, match=f"more than {LIMITS.answer_bytes}"):
        await ping(server, attempts=1)


async def test_a_redirect_is_not_followed(server: Scripted) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    server.then(elsewhere)
    with pytest.raises(ServiceError):
        await ping(server, attempts=1)
    assert len(server.asked) == 1


async def test_each_attempt_takes_the_credentials_of_its_moment(server: Scripted) -> None:
    names = iter(["first", "second", "third"])
    server.then(error(500), error(500), {})
    await server.calls.make("ping", lambda: Credentials(next(names), Secret("t" * 44)))
    assert server.clients == ["first", "second", "third"]


async def test_a_certificate_goes_with_its_credentials_and_the_credentials_stay_as_they_are(server: Scripted) -> None:
    credentials = Credentials("a-client", Secret("t" * 44), Secret('{"version":1}'))
    server.then({})
    for _ in range(2):
        await server.calls.make("ping", lambda: credentials)
    assert server.certificates == [{"certificate": {"version": 1}}] * 2
    assert credentials.access_token == Secret("t" * 44)


async def test_a_call_is_cancelled_when_its_caller_is(server: Scripted) -> None:
    server.then(stall())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ping(server, seconds=60)


async def test_an_error_of_our_own_is_not_taken_for_one_of_the_service(server: Scripted) -> None:
    server.then({})
    with pytest.raises(AttributeError):
        await server.calls.make("noSuchCall", lambda: CREDENTIALS)


async def test_no_error_shows_a_token(server: Scripted) -> None:
    server.then(error(401, "Unauthorized: Bad mac"))
    with pytest.raises(Refused) as caught:
        await ping(server)
    assert "tttt" not in repr(caught.value) + str(caught.value.__cause__) + repr(CREDENTIALS)
