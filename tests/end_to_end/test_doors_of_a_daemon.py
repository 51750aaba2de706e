"""The whole worker with a policy that opens doors: its script calls Taskcluster and a host, and is refused others."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import taskcluster.aio
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from tests.end_to_end.daemon import OWNER, Here, a_queue
from tests.sandbox.cage import a_directory

pytestmark = pytest.mark.sandbox

SCRIPT = """\
#!/bin/sh
at() { curl -sS -o /dev/null -w '%{http_code}' "$@" 2>/dev/null; }
secret=$TASKCLUSTER_PROXY_URL/api/secrets/v1/secret/project%2Ftest
curl -s "$secret%2Fours"
echo "theirs: $(at "$secret%2Ftheirs")"
echo "completed: $(at -X POST "$TASKCLUSTER_PROXY_URL/api/queue/v1/task/$TASK_ID/runs/0/completed")"
# localhost is in NO_PROXY; a host of another name needs no such option.
curl -s --noproxy '' "$(sed -n 's/.*"url": "\\(.*\\)".*/\\1/p' task.json)"
mkdir -p ../artifacts/public/build && echo built > ../artifacts/public/build/result.txt
echo "elsewhere: $(at http://elsewhere.test:8080/)"
"""
DOORS = """\
    taskcluster:
      routes: ["GET /api/secrets/v1/secret/project/test/*", "GET /api/queue/v1/task/*"]
      scopes: ["secrets:get:project/test/ours"]
    network:
      allow: [{{destination: "http://localhost:{port}", internal: true}}]
"""


@pytest.fixture
async def site() -> AsyncIterator[BaseTestServer]:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"hello from the {request.headers['Host'].partition(':')[0]} of the worker\n")

    application = web.Application()
    application.router.add_get("/x", hello)
    async with TestServer(application, host="127.0.0.1") as server:
        yield server


def open_doors(here: Here, port: int) -> None:
    """Give the worker's policy doors, and a script that goes through them."""
    script, policy = here.directory / "sleeper", here.directory / "policy.yml"
    before = hashlib.sha256(script.read_bytes()).hexdigest()
    script.write_text(SCRIPT)
    text = policy.read_text().replace(before, hashlib.sha256(SCRIPT.encode()).hexdigest())
    text = text.replace('allow: ["project:test:*"]', 'allow: ["project:test:*", "secrets:get:project/test/*"]')
    text = text.replace("{seconds: {type: number}, code: {type: integer}}", "{url: {type: string}}")
    text = text.replace("required: [seconds, code]", "required: [url]")
    policy.write_text(text + DOORS.format(port=port))


async def artifact(here: Here, task_id: str, name: str) -> bytes:
    url = f"{here.running.root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts/{name}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200, name
        return await answer.read()


async def test_a_script_reaches_what_policy_and_task_allow_and_the_provenance_counts_it(site: BaseTestServer) -> None:
    assert site.port is not None
    with a_directory() as directory:
        async with a_queue(directory) as here:
            open_doors(here, site.port)
            for name in ("ours", "theirs"):
                await set_secret(here, f"project/test/{name}", f"the secret is {name}")
            await here.start()
            task_id = await here.create(
                {"url": f"http://localhost:{site.port}/x"}, scopes=["secrets:get:project/test/*"]
            )
            assert await here.resolved(task_id) == "completed"
            log = await here.log_of(task_id)
            bundle = json.loads(await artifact(here, task_id, "public/provenance.sigstore.json"))
    for line in (
        "the secret is ours",
        "theirs: 403",
        "completed: 403",
        "hello from the localhost of the worker",
        "elsewhere: 403",
        "egress proxy: refused elsewhere.test:8080: the policy's network.allow does not name it for this script",
        f"taskcluster proxy: refused POST /api/queue/v1/task/{task_id}/runs/0/completed: ",
    ):
        assert line in log
    assert "the secret is theirs" not in log
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    network = statement["predicate"]["buildDefinition"]["internalParameters"]["network"]
    counted = {each["destination"]: (each["connections"], each["receivedBytes"] > 0) for each in network}
    assert counted == {f"localhost:{site.port}": (1, True), "taskcluster:secrets": (2, True)}


ASKING = """\
#!/bin/sh
# Asks once a second for as long as it is told.
url=$TASKCLUSTER_PROXY_URL/api/secrets/v1/secret/project%2Ftest%2Fours
seconds=$(sed -n 's/.*"seconds": \\([0-9]*\\).*/\\1/p' task.json)
for _ in $(seq "$seconds"); do
    curl -s -o answer -w "%{http_code} " "$url" || echo no answer
    sleep 1
done
"""


@pytest.mark.slow
async def test_a_script_is_answered_over_several_reclaims_where_no_certificate_outlives_its_claim() -> None:
    with a_directory() as directory:
        async with a_queue(directory, claim_seconds=6, certificate_drift=0) as here:
            open_doors(here, 1)
            policy = directory / "policy.yml"
            text = policy.read_text().replace("{url: {type: string}}", "{seconds: {type: integer}}")
            text = text.replace("required: [url]", "required: [seconds]")
            policy.write_text(text.replace(sha256(SCRIPT), sha256(ASKING)))
            (directory / "sleeper").write_text(ASKING)
            await set_secret(here, "project/test/ours", "here")
            worker = await here.start()
            task_id = await here.create({"seconds": 16}, scopes=["secrets:get:project/test/*"])
            assert await here.resolved(task_id) == "completed", worker.log
            log = await here.log_of(task_id)
            assert here.wire.count("/reclaim") >= 3
    assert log.count("200 ") >= 16
    assert "401" not in log
    assert "no answer" not in log


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def set_secret(here: Here, name: str, text: str) -> None:
    credentials = {"clientId": "owner", "accessToken": OWNER.access_token.reveal()}
    options: dict[str, Any] = {"rootUrl": here.running.root_url, "credentials": credentials}
    async with aiohttp.ClientSession() as session:
        secrets = taskcluster.aio.Secrets(options, session=session)
        await secrets.set(name, {"secret": {"text": text}, "expires": "2099-01-01T00:00:00.000Z"})
