"""The errors of the services, and the one body they all are sent as."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secureworker.localqueue.times import javascript

STATUS = {
    "MalformedPayload": 400,
    "InvalidRequestArguments": 400,
    "InputValidationError": 400,
    "InputError": 400,
    "AuthenticationFailed": 401,
    "InsufficientScopes": 403,
    "ResourceNotFound": 404,
    "NoMatchingMethod": 406,
    "RequestConflict": 409,
    "ResourceExpired": 410,
    "InputTooLarge": 413,
    "InternalServerError": 500,
}


class ApiError(Exception):
    """A request is answered with an error.

    Attributes:
        code: a key of `STATUS`.
        message: what the caller reads, before the list of facts that every body ends with.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]


def not_found(message: str) -> ApiError:
    """Say that something does not exist."""
    return ApiError("ResourceNotFound", message)


def conflict(message: str) -> ApiError:
    """Say that the request does not fit the state of things."""
    return ApiError("RequestConflict", message)


def bad_input(message: str) -> ApiError:
    """Say that the request is well formed and wrong."""
    return ApiError("InputError", message)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, as far as an error repeats it."""

    method: str
    params: Mapping[str, str]
    payload: Any
    time: datetime


def body(error: ApiError, asked: Asked) -> dict[str, Any]:
    """Make the body of an error."""
    time = javascript(asked.time)
    facts = (
        f"* method:     {asked.method}\n* errorCode:  {error.code}\n* statusCode: {error.status}\n* time:       {time}"
    )
    return {
        "code": error.code,
        "message": f"{error.message}\n\n---\n\n{facts}",
        "requestInfo": {"method": asked.method, "params": dict(asked.params), "payload": asked.payload, "time": time},
    }
