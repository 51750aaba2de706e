"""A witness over real HTTP, with real signatures and a state that it keeps (c2sp.org/tlog-witness)."""

import base64
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.core.checkpoint import BadNote, Checkpoint, open_checkpoint, parse_checkpoint
from secureworker.core.merkle import BadProof, check_consistency
from secureworker.core.witness import WitnessKey, cosignature_message
from secureworker.signing.keys import SigningKey
from secureworker.signing.publickeys import PublicKey
from tests.audit.conftest import a_key, log_key

TIME = 1_780_000_000
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class WitnessServer:
    """Signs for a log only if it has grown from what it signed last."""

    log: SigningKey
    key: SigningKey = field(default_factory=a_key)
    name: str = "witness.example.org/w1"
    state: dict[str, Checkpoint] = field(default_factory=dict)
    asked: list[tuple[int, int]] = field(default_factory=list)
    """Old size and size of each request that was in its form."""
    instead: Answer | None = None
    """What is answered in place of the protocol."""
    url: str = ""

    @property
    def witness_key(self) -> WitnessKey:
        return WitnessKey(self.name, self.key.public.raw, PublicKey(self.key.public.raw).verifies)

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=1 << 20)
        application.router.add_post("/w/add-checkpoint", self._answer)
        self._server = TestServer(application)
        await self._server.start_server()
        self.url = str(self._server.make_url("/w"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.instead is not None:
            return await self.instead(request)
        return self.add_checkpoint(await request.read())

    def add_checkpoint(self, body: bytes) -> web.Response:
        head, _, note = body.partition(b"\n\n")
        old, *hashes = head.decode().split("\n")
        word, size = old.split(" ")
        assert word == "old"
        try:
            origin = parse_checkpoint(note.rpartition(b"\n\n")[0] + b"\n").origin
            new = open_checkpoint(note, log_key(self.log).named(origin))
        except BadNote:
            return web.Response(status=403)
        self.asked.append((int(size), new.size))
        known = self.state.get(origin, Checkpoint(origin, 0, b""))
        conflict = web.Response(status=409, text=f"{known.size}\n", content_type="text/x.tlog.size")
        if int(size) > new.size:
            return web.Response(status=400)
        if int(size) != known.size:
            return conflict
        try:
            if known.size:
                proof = [base64.b64decode(one, validate=True) for one in hashes]
                check_consistency((known.size, known.root), (new.size, new.root), proof)
        except BadProof:
            return conflict if known.size == new.size else web.Response(status=422)
        self.state[origin] = new
        return web.Response(text=self.line(new.text))

    def line(self, text: bytes, seconds: int = TIME) -> str:
        """Cosign."""
        signature = self.key.sign(cosignature_message(text, seconds))
        blob = base64.b64encode(self.witness_key.id + struct.pack(">Q", seconds) + signature).decode()
        return f"\u2014 {self.name} {blob}\n"

    def cosign(self, note: bytes) -> bytes:
        """Give a checkpoint with our cosignature, without asking ourselves whether we should."""
        return note + self.line(note.rpartition(b"\n\n")[0] + b"\n").encode()
