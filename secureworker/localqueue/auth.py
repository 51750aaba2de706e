"""Auth, as far as a caller can ask about its own scopes; and what every service answers about itself."""

from secureworker.localqueue.calls import Call, Endpoint, Reply
from secureworker.localqueue.credentials import Clients

SERVICES = ("auth", "queue", "object", "secrets", "worker-manager")


class AuthEndpoints:
    """The Auth service."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Name what is served."""
        schema = "auth/v1/scopeset.json#"
        return (
            Endpoint("auth", "currentScopes", "GET", "/scopes/current", self._current, "auth:current-scopes"),
            Endpoint("auth", "expandScopes", "POST", "/scopes/expand", self._expand, "auth:expand-scopes", schema),
        )

    async def _current(self, call: Call) -> Reply:
        return Reply({"scopes": list(call.authenticate().scopes)})

    async def _expand(self, call: Call) -> Reply:
        return Reply({"scopes": list(self._clients.expand(tuple(call.payload["scopes"])))})


def monitoring(version: str) -> tuple[Endpoint, ...]:
    """Name what every service answers about itself."""

    async def ping(_call: Call) -> Reply:
        return Reply({"alive": True})

    async def alive(_call: Call) -> Reply:
        return Reply({})

    async def named(_call: Call) -> Reply:
        source = "https://github.com/taskcluster/taskcluster"
        return Reply({"version": version, "commit": "", "source": source, "build": "secureworker local-queue"})

    return tuple(
        Endpoint(service, name, "GET", route, handler)
        for service in SERVICES
        for name, route, handler in (
            ("ping", "/ping", ping),
            ("lbheartbeat", "/__lbheartbeat__", alive),
            ("heartbeat", "/__heartbeat__", alive),
            ("version", "/__version__", named),
        )
    )
