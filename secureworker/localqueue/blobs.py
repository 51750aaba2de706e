"""Bytes of artifacts and objects: files behind presigned URLs, as an S3 server keeps them.

A URL is signed with its method, path, times and the headers that must be sent with it. Bodies are streamed both ways.
"""

import asyncio
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, unquote, urlencode
from xml.sax.saxutils import escape

from aiohttp import web

from secureworker.localqueue.artifact_rows import BlobRows, StoredBlob
from secureworker.localqueue.calls import parse_query
from secureworker.localqueue.journal import Journal

PUBLIC, PRIVATE, OBJECTS = "public-bucket", "private-bucket", "object-bucket"
BUCKETS = (PUBLIC, PRIVATE, OBJECTS)
_STAMP = "%Y%m%dT%H%M%SZ"
_ALGORITHM = "LOCAL-HMAC-SHA256"
"""Not AWS's: URLs look like its own, and are as opaque to a client, but nothing here has an AWS secret."""
_KEPT_HEADERS = ("Content-Type", "Content-Encoding", "Content-Disposition", "Cache-Control")
_WRITE_BYTES = 1 << 20
"""How much of a body is collected before a thread writes it: fewer switches, bounded memory."""
_UNESCAPED = "/~()+!*'"


class Refused(Exception):
    """A request for a blob is refused, in S3's way.

    Attributes:
        status: of the answer.
        code: S3's name for it.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> web.Response:
        """Make the answer."""
        text = f"<Error><Code>{self.code}</Code><Message>{escape(str(self))}</Message></Error>"
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'
        return web.Response(status=self.status, text=body, content_type="application/xml")


class Blobs:
    """The buckets."""

    def __init__(self, directory: Path, rows: BlobRows, key: str, journal: Journal) -> None:
        self._directory = directory
        self._rows = rows
        self._key = key.encode()
        self._journal = journal
        self._clock = journal.clock
        for left_over in directory.glob("*.part"):
            left_over.unlink()

    def url(self, root_url: str, bucket: str, key: str) -> str:
        """Give the URL of a blob, unsigned: good for reading from the public bucket only."""
        return f"{root_url}/{bucket}/{quote(key, safe=_UNESCAPED)}"

    def signed_url(
        self, root: str, method: str, bucket_key: tuple[str, str], lifetime: float, headers: Mapping[str, str]
    ) -> tuple[str, datetime]:
        """Make a URL that is good for one method until it expires; give that time too.

        Args:
            root: the root URL.
            method: `PUT`, or `GET` (which HEAD may use as well).
            bucket_key: where the blob is.
            lifetime: in seconds.
            headers: lower-case names and the values they must be sent with.
        """
        now = self._clock()
        url = self.url(root, *bucket_key)
        query = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Date": now.strftime(_STAMP),
            "X-Amz-Expires": str(round(lifetime)),
            "X-Amz-SignedHeaders": ";".join(sorted({"host", *headers})),
        }
        signature = self._sign(method, "/" + "/".join(bucket_key), query, headers)
        return f"{url}?{urlencode({**query, 'X-Amz-Signature': signature})}", now + timedelta(seconds=lifetime)

    def keep(self, bucket: str, key: str, content: bytes, content_type: str) -> None:
        """Keep a few bytes that came in a request; blocks for as long as writing them takes."""
        file = secrets.token_hex(16)
        (self._directory / file).write_bytes(content)
        self._replace(f"{bucket}/{key}", StoredBlob(file, len(content), {"Content-Type": content_type}))
        self._journal.of_blob(f"{bucket}/{key}", self._directory / file, "")

    def exists(self, bucket: str, key: str) -> bool:
        """Whether something was uploaded."""
        return self._rows.get(f"{bucket}/{key}") is not None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for a path that begins with a bucket."""
        try:
            return await self._serve(request)
        except Refused as refusal:
            return refusal.response()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path, _, text = request.raw_path.partition("?")
        bucket, _, key = unquote(path[1:]).partition("/")
        query = parse_query(text)
        method = "GET" if request.method == "HEAD" else request.method
        if method not in {"GET", "PUT"}:
            raise Refused(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        if method == "PUT" or bucket != PUBLIC or "X-Amz-Signature" in query:
            # Signed decoded: clients differ in which letters of a path they escape.
            self._check(method, unquote(path), query, request.headers)
        if method == "GET":
            return self._give(f"{bucket}/{key}")
        return await self._take(f"{bucket}/{key}", request)

    def _check(self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str]) -> None:
        given = query.pop("X-Amz-Signature", "")
        if not given:
            raise Refused(403, "AccessDenied", "Access Denied")
        named = query.get("X-Amz-SignedHeaders", "").split(";")
        sent = {name: headers.get(name, "") for name in named if name != "host"}
        if not hmac.compare_digest(self._sign(method, path, query, sent), given):
            message = "The request signature we calculated does not match the signature you provided."
            raise Refused(403, "SignatureDoesNotMatch", message)
        # Signed, hence ours and well-formed.
        begin = datetime.strptime(query["X-Amz-Date"], _STAMP).replace(tzinfo=UTC)
        if self._clock() > begin + timedelta(seconds=int(query["X-Amz-Expires"])):
            raise Refused(403, "AccessDenied", "Request has expired")

    def _sign(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        lines = [method, path, urlencode(sorted(query.items()))]
        lines += [f"{name}:{value}" for name, value in sorted(headers.items())]
        return hmac.new(self._key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()

    def _give(self, key: str) -> web.StreamResponse:
        blob = self._rows.get(key)
        if blob is None:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        return web.FileResponse(self._directory / blob.file, headers=blob.headers)

    async def _take(self, key: str, request: web.Request) -> web.StreamResponse:
        if request.content_length is None:
            raise Refused(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        file = secrets.token_hex(16)
        part = self._directory / f"{file}.part"
        try:
            size = await _receive(request, part)
            headers = {name: request.headers[name] for name in _KEPT_HEADERS if name in request.headers}
            part.replace(self._directory / file)
        finally:
            # Gone already, unless the upload was broken off.
            part.unlink(missing_ok=True)
        headers.setdefault("Content-Type", "binary/octet-stream")
        old = self._replace(key, StoredBlob(file, size, headers))
        await asyncio.to_thread(self._conclude, old, key, self._directory / file, headers.get("Content-Encoding", ""))
        return web.Response(headers={"ETag": f'"{file}"'})

    def _replace(self, key: str, blob: StoredBlob) -> str | None:
        old = self._rows.get(key)
        self._rows.save(key, blob)
        return None if old is None else old.file

    def _conclude(self, old: str | None, key: str, file: Path, encoding: str) -> None:
        if old is not None:
            (self._directory / old).unlink(missing_ok=True)
        self._journal.of_blob(key, file, encoding)


async def _receive(request: web.Request, into: Path) -> int:
    """Write a body to a file; give its length."""
    # Opened here, not in a thread: one that is cancelled would make the file after it was removed.
    descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size, held, chunks = 0, 0, list[bytes]()
        while chunk := await request.content.readany():
            chunks.append(chunk)
            held += len(chunk)
            if held >= _WRITE_BYTES:
                await _written(descriptor, chunks)
                size, held, chunks = size + held, 0, []
        await _written(descriptor, chunks)
        return size + held
    finally:
        os.close(descriptor)


async def _written(descriptor: int, chunks: list[bytes]) -> None:
    """Write in a thread; when cancelled, return once it has ended, for its descriptor is closed next."""
    writing = asyncio.get_running_loop().run_in_executor(None, _write, descriptor, chunks)
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        raise


def _write(descriptor: int, chunks: list[bytes]) -> None:
    content = memoryview(b"".join(chunks))
    while content:
        content = content[os.write(descriptor, content) :]
