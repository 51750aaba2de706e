"""One way to call a Taskcluster service: timeouts, retries, fresh credentials, and errors that are ours.

The official client makes the request. Its own retries are off: ours take the newest credentials for every attempt
(a run's are renewed while its artifacts are uploaded), and wait on the worker's clock.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, TypeAlias, final

import aiohttp
import taskcluster.aio
from taskcluster.exceptions import TaskclusterAuthFailure, TaskclusterConnectionError, TaskclusterRestFailure

from secureworker.core.claim import Credentials, Json
from secureworker.core.errors import AccessDenied, Defect, SecureworkerError, ServiceError
from secureworker.ports import Clock

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
"""For one attempt. The real services answer within 25 ms."""
PAUSES_SECONDS = (0.2, 1.0, 3.0, 8.0)
"""Between attempts, times 0.5 to 1.5: workers that lost the Queue together must not come back together."""

ATTEMPTS = len(PAUSES_SECONDS) + 1
"""Of a call, where its caller does not try again by itself."""

Answer: TypeAlias = dict[str, Json]


class Refused(Exception):
    """The service understood, and will not: an answer of 400 to 499, but 429. Never leaves this package."""

    def __init__(self, call: str, status: int, message: str) -> None:
        super().__init__(f"{call}: {status}: {message}")
        self.status = status

    def as_ours(self) -> SecureworkerError:
        """Give the error of our own tree for an answer that no rule of the call speaks of."""
        if self.status in (401, 403):
            return AccessDenied(str(self))
        # Whatever the others mean, the same request again means the same: something here is wrong.
        return Defect(f"the Queue refuses what this worker asks: {self}")


_JITTER = random.SystemRandom().random
"""0 to 1."""


@final
class Calls:
    """Makes calls of the Queue, or of another service, with whatever credentials the caller has at that moment."""

    def __init__(
        self,
        root_url: str,
        session: aiohttp.ClientSession,
        clock: Clock,
        jitter: Callable[[], float] = _JITTER,
    ) -> None:
        self._root_url = root_url
        self._session = session
        self._clock = clock
        self._jitter = jitter
        self._service = "Queue"
        self._scopes: tuple[str, ...] | None = None

    def of(self, service: str, scopes: tuple[str, ...] | None = None) -> "Calls":
        """Give the calls of another service.

        Args:
            service: name of a class of the official client.
            scopes: all that the calls are authorised for, whatever the credentials could do; None: no narrower.
        """
        other = Calls(self._root_url, self._session, self._clock, self._jitter)
        other._service, other._scopes = service, scopes
        return other

    async def make(
        self,
        call: str,
        credentials: Callable[[], Credentials | None],
        *arguments: object,
        timeout: float = TIMEOUT_SECONDS,  # noqa: ASYNC109 - of one attempt, not of this function
        attempts: int = ATTEMPTS,
        check: Callable[[Answer], object] = bool,
    ) -> Answer:
        """Make a call until it is answered or `attempts` are used up.

        Args:
            call: name of a method of the official client.
            credentials: asked for before each attempt; None is nobody.
            arguments: of the method.
            timeout: seconds for one attempt.
            attempts: how often to try.
            check: raises ValueError where an answer cannot be one of this call's: then it is asked for again.

        Returns:
            the JSON object that was answered; an empty one for 204.

        Raises:
            Refused: the service will not, and would not later.
            ServiceError: it could not be reached, is broken, or answered nonsense.
        """
        for attempt in range(1, attempts + 1):
            try:
                async with asyncio.timeout(timeout):
                    answer = await getattr(self._client(credentials()), call)(*arguments)
                return _checked(answer, check)
            except Exception as error:
                problem = _problem(error, call, timeout)
                if attempt == attempts:
                    raise ServiceError(f"{call}: {problem}" + _tries(attempts)) from error
                logger.debug("%s: %s; attempt %d of %d", call, problem, attempt, attempts)
            await self._clock.sleep(PAUSES_SECONDS[min(attempt, len(PAUSES_SECONDS)) - 1] * (0.5 + self._jitter()))
        raise AssertionError  # the last attempt returns or raises

    def _client(self, credentials: Credentials | None) -> Any:
        """Make a client for one attempt: it changes the credentials it is given in place, so they are made for it."""
        options: dict[str, Any] = {"rootUrl": self._root_url, "maxRetries": 0, "credentials": _given(credentials)}
        if self._scopes is not None:
            options["authorizedScopes"] = list(self._scopes)
        return getattr(taskcluster.aio, self._service)(options, session=self._session)


def _given(credentials: Credentials | None) -> dict[str, str]:
    """Write credentials as the official client takes them. Nobody's: none, which keeps it from the environment's."""
    if credentials is None:
        return {}
    given = {"clientId": credentials.client_id, "accessToken": credentials.access_token.reveal()}
    if credentials.certificate is not None:
        given["certificate"] = credentials.certificate.reveal()
    return given


def _tries(attempts: int) -> str:
    return f" (tried {attempts} times)" if attempts > 1 else ""


def _problem(error: Exception, call: str, timeout: float) -> str:
    """Say what kept an attempt from being answered, where another one may be; else raise."""
    match error:
        case _Nonsense():
            return str(error)
        case TimeoutError():
            return f"no answer within {timeout:g} s"
        case TaskclusterRestFailure(status_code=status) | TaskclusterAuthFailure(status_code=status):
            message = _first_line(str(error))
            if status == 429 or status >= 500:  # noqa: PLR2004 - HTTP's
                return f"{status}: {message}"
            raise Refused(call, status, message) from error
        case aiohttp.ClientResponseError(status=status):
            return f"{status}: {_first_line(error.message)}"
        case TaskclusterConnectionError(superExc=cause):
            return f"no connection ({type(cause).__name__}: {_first_line(str(cause))})"
        case aiohttp.ClientError() | OSError() | ValueError() | LookupError():
            # LookupError: an answer in an encoding that Python does not know.
            return f"the answer cannot be read ({type(error).__name__}: {_first_line(str(error))})"
        case _:
            raise error


def _first_line(message: str) -> str:
    """Shorten a service's message: what matters comes first, a dump of the request follows."""
    return " ".join(message.split("\n---", 1)[0].split())[:300]


class _Nonsense(ValueError):
    """It was answered, and not with an answer."""


def _checked(answer: object, check: Callable[[Answer], object]) -> Answer:
    """Refuse what is no object, or not of the call. The client gives `{"response": ...}` where the body was no JSON."""
    if answer is None:
        answer = {}
    if not isinstance(answer, dict) or isinstance(answer.get("response"), aiohttp.ClientResponse):
        raise _Nonsense("answered with something else than a JSON object; is the root URL a Taskcluster's?")
    try:
        check(answer)
    except ValueError as error:
        raise _Nonsense(f"the answer cannot be used: {error}") from error
    return answer
