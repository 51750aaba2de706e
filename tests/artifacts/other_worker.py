"""A worker of another pool, as generic-worker is one: makes artifacts, and signs a chain of trust with its own key."""

import gzip
import hashlib
import io
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import taskcluster
from yarl import URL

from secureworker.signing.keys import SigningKey

BUILD_POOL = "test-builders/b-linux"


@dataclass
class OtherWorker:
    """Claims its own tasks at the embedded Taskcluster, and does what it says it did, unless told to lie."""

    client: Any
    """The official client, with credentials for everything."""
    session: aiohttp.ClientSession
    key: SigningKey
    pool: str = BUILD_POOL
    storage: str = "s3"
    definitions: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def create(self, **definition: Any) -> str:
        """Create a task for it."""
        task_id = str(taskcluster.slugId())
        now = datetime.now(UTC)
        metadata = {"name": "a build", "description": "", "owner": "a@example.com", "source": "https://example.com"}
        task = {
            "taskQueueId": self.pool,
            "created": now.isoformat(),
            "deadline": (now + timedelta(hours=1)).isoformat(),
            "payload": {"features": {"chainOfTrust": True}},
            "metadata": metadata,
        }
        await self.client.createTask(task_id, {**task, **definition})
        return task_id

    async def build(self, files: dict[str, bytes], **lies: Any) -> str:
        """Create a task, carry it out, and give its id; see `carry_out`."""
        task_id = await self.create(**lies.pop("definition", {}))
        await self.carry_out(task_id, files, **lies)
        return task_id

    async def carry_out(  # noqa: PLR0913 - every lie that a worker could tell
        self,
        task_id: str,
        files: dict[str, bytes],
        *,
        signed: dict[str, bytes] | None = None,
        body: dict[str, Any] | None = None,
        key: SigningKey | None = None,
        report: str = "reportCompleted",
        publish: bool = True,
    ) -> None:
        """Claim a task, upload files, sign, and resolve.

        Args:
            task_id: the only task of its pool.
            files: what is uploaded. `.txt` files are compressed on the wire.
            signed: what is signed, where that is something else.
            body: replaces keys of the chain of trust.
            key: signs, instead of the worker's own.
            report: how the run is resolved.
            publish: whether the chain of trust is.
        """
        claimed = await self.client.claimWork(self.pool, {"workerGroup": "us", "workerId": "i-1", "tasks": 1})
        (claim,) = claimed["tasks"]
        assert claim["status"]["taskId"] == task_id
        run_id = str(claim["runId"])
        for name, content in files.items():
            await self.upload(task_id, run_id, name, content, compressed=name.endswith(".txt"))
        contents = files if signed is None else signed
        digests = {name: {"sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items()}
        statement = {
            "artifacts": digests,
            "chainOfTrustVersion": 1,
            "environment": {"instanceType": "m5.large"},
            "runId": claim["runId"],
            "task": claim["task"],
            "taskId": task_id,
            "workerGroup": claim["workerGroup"],
            "workerId": claim["workerId"],
            "workerType": claim["task"]["workerType"],
            **(body or {}),
        }
        if publish:
            written = json.dumps(statement, indent=2).encode()
            signature = (key or self.key).sign(written)
            await self.upload(task_id, run_id, "public/chain-of-trust.json", written, compressed=True)
            await self.upload(task_id, run_id, "public/chain-of-trust.json.sig", signature)
        await getattr(self.client, report)(task_id, run_id)

    async def upload(
        self, task_id: str, run_id: str, name: str, content: bytes, *, compressed: bool = False, kind: str = "s3"
    ) -> None:
        """Upload one artifact."""
        expires = (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        content_type = "application/octet-stream"
        asked = {"storageType": kind, "contentType": content_type, "expires": expires}
        answer = await self.client.createArtifact(task_id, run_id, name, asked)
        headers = {"Content-Type": content_type}
        if compressed:
            headers["Content-Encoding"] = "gzip"
            content = gzip.compress(content)
        url = URL(answer["putUrl"], encoded=True)
        async with self.session.put(url, data=io.BytesIO(content), headers=headers) as stored:
            assert stored.status == 200, await stored.text()
