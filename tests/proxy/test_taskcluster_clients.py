"""Official clients in the real sandbox, at the embedded Taskcluster, with the credentials of a claimed run."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.core.doors import Doors, granted_scopes
from secureworker.core.plan import Mount
from tests.localqueue.harness import ROOT, World, a_world
from tests.proxy.caged import DoorCage, Result, a_door_cage, npm_modules, python
from tests.proxy.harness import RunWith, routes

pytestmark = pytest.mark.sandbox

SCOPES = ("secrets:get:project/x/*", "secrets:get:project/z", "queue:get-artifact:private/*")
RULE = ("secrets:get:project/x/*", "secrets:get:project/y")
ROUTES = routes(
    "GET /api/secrets/v1/secret/*",
    "GET /api/queue/v1/task/*",
    "GET /api/auth/v1/scopes/current",
    "POST /api/queue/v1/task/*",
    "PUT /api/queue/v1/task/*",
    "POST /api/queue/v1/claim-work/*",
)


@dataclass(frozen=True)
class Scene:
    """A claimed run whose script may do some things at Taskcluster."""

    world: World
    cage: DoorCage
    run: RunWith
    task_id: str

    async def script(self, text: str, **changes: Any) -> Result:
        doors = Doors(routes=ROUTES, scopes=granted_scopes(RULE, SCOPES))
        return await self.cage.run(text, doors, run=self.run, root_url=self.world.root_url, **changes)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with a_world(None) as world, a_door_cage() as cage:
        for name in ("project/x/y", "project/y", "project/z", "project/other"):
            secret = {"secret": {"is": name}, "expires": "2099-01-01T00:00:00.000Z"}
            assert (await world.ask(ROOT, "set", name, payload=secret, service="Secrets")).status == 200
        task_id, credentials = await world.claimed(scopes=list(SCOPES))
        run = RunWith(credentials["clientId"], credentials["accessToken"], credentials["certificate"])
        yield Scene(world, cage, run, task_id)


def secrets_of(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


EXPECTED = {
    "project/x/y": "project/x/y",  # both the rule and the task allow it
    "project/y": 403,  # the rule does, the task does not
    "project/z": 403,  # the task does, the rule does not
    "project/other": 403,
    "current": ["secrets:get:project/x/*"],
}


async def test_the_synchronous_python_client_reads_what_rule_and_task_allow(scene: Scene) -> None:
    result = await scene.script(
        python(
            """
import json, os, taskcluster
options = {"rootUrl": os.environ["TASKCLUSTER_PROXY_URL"], "maxRetries": 0}
client, found = taskcluster.Secrets(options), {}
for name in ("project/x/y", "project/y", "project/z", "project/other"):
    try:
        found[name] = client.get(name)["secret"]["is"]
    except taskcluster.exceptions.TaskclusterRestFailure as error:
        found[name] = error.status_code
found["current"] = [s for s in taskcluster.Auth(options).currentScopes()["scopes"] if s.startswith("secrets:get")]
print(json.dumps(found))
"""
        )
    )
    assert secrets_of(result.succeeded()) == EXPECTED
    assert {traffic.destination for traffic in result.traffic} == {"taskcluster:auth", "taskcluster:secrets"}


async def test_the_asynchronous_python_client_does_too(scene: Scene) -> None:
    result = await scene.script(
        python(
            """
import asyncio, json, os, aiohttp, taskcluster, taskcluster.aio
async def main():
    options, found = {"rootUrl": os.environ["TASKCLUSTER_PROXY_URL"], "maxRetries": 0}, {}
    async with aiohttp.ClientSession() as session:
        client = taskcluster.aio.Secrets(options, session=session)
        for name in ("project/x/y", "project/y", "project/z", "project/other"):
            try:
                found[name] = (await client.get(name))["secret"]["is"]
            except taskcluster.exceptions.TaskclusterRestFailure as error:
                found[name] = error.status_code
        scopes = (await taskcluster.aio.Auth(options, session=session).currentScopes())["scopes"]
        found["current"] = [s for s in scopes if s.startswith("secrets:get")]
    print(json.dumps(found))
asyncio.run(main())
"""
        )
    )
    assert secrets_of(result.succeeded()) == EXPECTED


async def test_the_node_client_does_too(scene: Scene) -> None:
    modules = npm_modules()
    result = await scene.script(
        """#!/usr/bin/env node
process.chdir("/opt/clients");
import("/opt/clients/node_modules/taskcluster-client/src/index.js").then(async ({default: taskcluster}) => {
  const options = {rootUrl: process.env.TASKCLUSTER_PROXY_URL, retries: 0}, found = {};
  const client = new taskcluster.Secrets(options);
  for (const name of ["project/x/y", "project/y", "project/z", "project/other"]) {
    try { found[name] = (await client.get(name)).secret.is; } catch (error) { found[name] = error.statusCode; }
  }
  const {scopes} = await new taskcluster.Auth(options).currentScopes();
  found.current = scopes.filter(s => s.startsWith("secrets:get"));
  console.log(JSON.stringify(found));
}).catch(error => { console.error(error); process.exit(1); });
""",
        mounts=(Mount(str(modules), "/opt/clients"),),
    )
    assert secrets_of(result.succeeded()) == EXPECTED


async def test_curl_does_too(scene: Scene) -> None:
    result = await scene.script(
        """#!/bin/sh -e
for name in project/x/y project/y project/z project/other; do
    curl --silent --output answer --write-out "$name %{http_code} " $TASKCLUSTER_PROXY_URL/api/secrets/v1/secret/$name
    tr -d '\\n ' < answer; echo
done
curl --silent --data '{}' --write-out '%{http_code}' $TASKCLUSTER_PROXY_URL/api/hooks/v1/hooks/a/b/trigger
"""
    )
    lines = result.succeeded().splitlines()
    assert lines[0].startswith('project/x/y 200 {"secret":{"is":"project/x/y"}')
    assert [line.split()[1] for line in lines[1:4]] == ["403"] * 3
    assert lines[-1].endswith("403")
    (note,) = result.notes
    assert note.startswith("taskcluster proxy: refused POST /api/hooks/v1/hooks/a/b/trigger: the policy's")


async def test_the_run_cannot_be_resolved_reclaimed_or_given_artifacts_and_no_work_claimed(scene: Scene) -> None:
    other, _ = await scene.world.claimed()
    result = await scene.script(
        python(
            f"""
import os, taskcluster
queue = taskcluster.Queue({{"rootUrl": os.environ["TASKCLUSTER_PROXY_URL"], "maxRetries": 0}})
mine, other = {scene.task_id!r}, {other!r}
artifact = {{"storageType": "s3", "contentType": "text/plain", "expires": "2026-12-01T00:00:00Z"}}
attempts = [
    lambda: queue.reclaimTask(mine, 0),
    lambda: queue.reportCompleted(mine, 0),
    lambda: queue.reportFailed(mine, 0),
    lambda: queue.reportException(mine, 0, {{"reason": "internal-error"}}),
    lambda: queue.createArtifact(mine, 0, "public/x", artifact),
    lambda: queue.createArtifact(other, 0, "public/x", artifact),
    lambda: queue.claimTask(mine, 0, {{"workerGroup": "a", "workerId": "b"}}),
    lambda: queue.claimWork("tc-real/smoke-42a79", {{"workerGroup": "a", "workerId": "b", "tasks": 1}}),
    lambda: queue.cancelTask(mine),
]
for attempt in attempts:
    try:
        print("got through:", attempt())
    except taskcluster.exceptions.TaskclusterRestFailure as error:
        print(error.status_code)
print(queue.status(mine)["status"]["state"])
"""
        )
    )
    assert result.succeeded().splitlines() == [*["403"] * 9, "running"]
    status = await scene.world.status(scene.task_id)
    assert status["runs"][0]["state"] == "running"


async def test_credentials_are_fresh_after_a_reclaim_in_the_middle_of_a_script(scene: Scene) -> None:
    """The first certificate has expired by then, and the requests still work."""
    answer = await scene.world.ask(
        {"clientId": scene.run.credentials.client_id, **_token(scene.run)}, "reclaimTask", scene.task_id, "0"
    )
    assert answer.status == 200
    fresh = answer.body["credentials"]
    scene.world.clock.advance(15 * 60)
    run = RunWith(fresh["clientId"], fresh["accessToken"], fresh["certificate"])
    renewed = Scene(scene.world, scene.cage, run, scene.task_id)
    result = await renewed.script("#!/bin/sh\ncurl -s $TASKCLUSTER_PROXY_URL/api/secrets/v1/secret/project%2Fx%2Fy")
    assert '"is": "project/x/y"' in result.succeeded()


def _token(run: RunWith) -> dict[str, str]:
    credentials = run.credentials
    assert credentials.certificate is not None
    return {"accessToken": credentials.access_token.reveal(), "certificate": credentials.certificate.reveal()}


async def test_no_credential_is_anywhere_in_the_sandbox(scene: Scene) -> None:
    token = scene.run.credentials.access_token.reveal()
    result = await scene.script(
        "#!/bin/sh\nenv; cat /proc/*/environ /proc/*/cmdline /etc/*\n"
        # Not into mounts: the tests' own environment may lie below /tmp.
        "find /task /tmp /dev/shm -xdev -type f -exec cat {} +"
    )
    assert "TASKCLUSTER_PROXY_URL=http://taskcluster" in result.output
    assert token not in result.output
    found = result.output.find("certificate")
    assert found == -1, result.output[max(0, found - 200) : found + 200]


def memory_kb(field: str) -> int:
    return int(re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)[1])  # type: ignore[index]


async def test_100_mb_go_both_ways_with_constant_memory() -> None:
    size, piece = 100_000_000, bytes(1_000_000)
    uploaded = 0

    async def exchange(request: web.Request) -> web.StreamResponse:
        nonlocal uploaded
        async for chunk in request.content.iter_any():
            uploaded += len(chunk)
        response = web.StreamResponse(headers={"Content-Length": str(size)})
        await response.prepare(request)
        for _ in range(size // len(piece)):
            await response.write(piece)
        return response

    application = web.Application(client_max_size=1 << 40)
    application.router.add_put("/{path:.*}", exchange)
    async with TestServer(application) as server, a_door_cage() as cage:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of memory so far (proc(5))
        before = memory_kb("VmRSS")
        result = await cage.run(
            python(
                """
import os, requests
def pieces():
    for _ in range(100):
        yield bytes(1_000_000)
url = os.environ["TASKCLUSTER_PROXY_URL"] + "/api/object/v1/upload/x"
with requests.put(url, data=pieces(), stream=True, timeout=60) as answer:
    print(sum(map(len, answer.iter_content(1 << 16))))
"""
            ),
            Doors(routes=routes("PUT /api/object/v1/upload/*")),
            run=RunWith("me", "k" * 44),
            root_url=f"http://127.0.0.1:{server.port}",
        )
        grown = memory_kb("VmHWM") - before
    assert result.succeeded().strip() == str(size)
    assert uploaded == size
    # Server, doors, and the sandbox's threads, all in this process.
    assert grown < 20_000, f"{grown} kB"
