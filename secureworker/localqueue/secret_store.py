"""Secrets: JSON objects by name, until they expire."""

import json

from secureworker.localqueue import times
from secureworker.localqueue.calls import Call, Endpoint, Reply
from secureworker.localqueue.database import Database
from secureworker.localqueue.errors import ApiError, not_found
from secureworker.localqueue.times import from_milliseconds, javascript, milliseconds


class SecretEndpoints:
    """The Secrets service. Kept in the clear: this is no place for real secrets."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Name what is served."""
        route, change = "/secret/<name>", "secrets:set:<name>"
        return (
            Endpoint("secrets", "set", "PUT", route, self._set, change, "secrets/v1/secret.json#"),
            Endpoint("secrets", "remove", "DELETE", route, self._remove, change),
            Endpoint("secrets", "get", "GET", route, self._get, "secrets:get:<name>"),
            Endpoint("secrets", "list", "GET", "/secrets", self._list, "secrets:list-secrets"),
        )

    async def _set(self, call: Call) -> Reply:
        expires = milliseconds(times.parse(call.payload["expires"]))
        row = (call.params["name"], json.dumps(call.payload["secret"]), expires)
        self._db.execute("INSERT OR REPLACE INTO secrets VALUES (?, ?, ?)", row)
        return Reply({})

    async def _remove(self, call: Call) -> Reply:
        self._db.execute("DELETE FROM secrets WHERE name = ?", (call.params["name"],))
        return Reply({})

    async def _get(self, call: Call) -> Reply:
        query = "SELECT secret, expires FROM secrets WHERE name = ?"
        for secret, expires in self._db.execute(query, (call.params["name"],)):
            if from_milliseconds(expires) < call.now:
                raise ApiError("ResourceExpired", "The requested resource has expired.")
            return Reply({"secret": json.loads(secret), "expires": javascript(from_milliseconds(expires))})
        raise not_found("Secret not found")

    async def _list(self, call: Call) -> Reply:
        limit, offset = call.page()
        query = "SELECT name FROM secrets ORDER BY name LIMIT ? OFFSET ?"
        return Reply(call.paged("secrets", [name for (name,) in self._db.execute(query, (limit + 1, offset))]))
