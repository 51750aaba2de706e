"""The transit engine of a Vault over real HTTP, with real keys: as much of it as signing takes."""

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secureworker.signing.publickeys import PublicKey

TOKEN = "hvs.a-token-that-is-nobodys-business"
Handler = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class VaultServer:
    """Holds versions of one key, `release`."""

    versions: list[Ed25519PrivateKey] = field(default_factory=lambda: [Ed25519PrivateKey.generate()])
    kind: str = "ed25519"
    derived: bool = False
    instead: Handler | None = None
    """What is answered in place of the engine."""
    only_instead_of: str = "/v1/"
    signed: int = 0
    url: str = ""

    def public(self, version: int = 1) -> PublicKey:
        return PublicKey(self.versions[version - 1].public_key().public_bytes_raw())

    @property
    def environ(self) -> dict[str, str]:
        return {"VAULT_ADDR": self.url, "VAULT_TOKEN": TOKEN}

    def __enter__(self) -> Self:
        vault = self

        class Engine(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer in one piece: in two, the second waits 40 ms for the first to be acknowledged.
            wbufsize = -1

            def do_GET(self) -> None:
                vault._answer(self, b"")

            def do_POST(self) -> None:
                vault._answer(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.instead is not None and self.only_instead_of in request.path:
            self.instead(request)
        elif request.headers.get("X-Vault-Token") != TOKEN:
            answer(request, 403, {"errors": ["permission denied"]})
        elif request.path == "/v1/transit/keys/release":
            keys = {
                str(number): {"name": self.kind, "public_key": self.public(number).base64}
                for number in range(1, len(self.versions) + 1)
            }
            answer(request, 200, {"data": {"type": self.kind, "derived": self.derived, "keys": keys}})
        elif request.path == "/v1/transit/sign/release":
            asked = json.loads(body)
            version = asked["key_version"]
            signature = self.versions[version - 1].sign(base64.b64decode(asked["input"]))
            self.signed += 1
            text = f"vault:v{version}:{base64.b64encode(signature).decode()}"
            answer(request, 200, {"data": {"signature": text, "key_version": version}})
        else:
            answer(request, 404, {"errors": []})


def answer(
    request: BaseHTTPRequestHandler, status: int, document: Any, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(content)))
    for name, value in headers:
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)
