"""scriptworker takes what this worker published as an upstream of its own; and this takes what scriptworker writes."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
from secureworker.signing.keys import SigningKey, create_signing_key
from secureworker.signing.verify import Expected, verify_directory
from secureworker.testing import IDENTITY, TASK_ID, a_claim_answer
from tests.localqueue.harness import World, a_world
from tests.signing.deployment import publish

pytestmark = pytest.mark.slow

CONTENTS = {"public/a.txt": b"content of a", "public/build/b.bin": bytes(100_000)}

# Arguments: root URL, task id, public key, directory to work in, then the artifacts wanted. Everything that is called
# is scriptworker's own: it downloads, verifies the signature, and compares digests as for its own upstreams.
UPSTREAM = """
import asyncio, os, sys
import aiohttp, taskcluster.aio
from scriptworker.config import apply_product_config, get_unfrozen_copy
from scriptworker.constants import DEFAULT_CONFIG
from scriptworker.context import Context
from scriptworker.cot.verify import (
    ChainOfTrust, LinkOfTrust, download_cot, download_cot_artifacts, verify_cot_signatures
)
from scriptworker.exceptions import CoTError

async def main(root_url, task_id, key, directory, *paths):
    context = Context()
    config = get_unfrozen_copy(DEFAULT_CONFIG)
    config.update(cot_product="firefox", taskcluster_root_url=root_url, verify_cot_signature=True)
    config.update(work_dir=os.path.join(directory, "work"), artifact_dir=os.path.join(directory, "artifacts"))
    config["valid_artifact_rules"] = (
        {"schemes": ["http"], "netlocs": [root_url.partition("//")[2]],
         "path_regexes": [r"^/api/queue/v1/task/(?P<taskId>[^/]+)(/runs/\\d+)?/artifacts/(?P<filepath>.*)$"]},
    )
    config["ed25519_public_keys"] = {"scriptworker": [key]}
    context.config = apply_product_config(config)
    upstream = {"taskId": task_id, "taskType": "build", "paths": list(paths)}
    context.task = {"taskGroupId": task_id, "dependencies": [task_id], "provisionerId": "p", "workerType": "signing",
                    "tags": {"worker-implementation": "scriptworker"}, "extra": {}, "scopes": [],
                    "payload": {"upstreamArtifacts": [upstream]}, "metadata": {"name": "n", "source": "s"}}
    async with aiohttp.ClientSession() as session:
        context.session = session
        context.queue = taskcluster.aio.Queue({"rootUrl": root_url}, session=session)
        chain = ChainOfTrust(context, "signing", task_id="EscAd2voQG-2LCx8q9gDQQ")
        link = LinkOfTrust(context, "build", task_id)
        link.worker_impl, link.task_type = "scriptworker", "build"
        chain.links = [link]
        await download_cot(chain)
        verify_cot_signatures(chain)
        for path in sorted(await download_cot_artifacts(chain)):
            print(os.path.relpath(path, config["work_dir"]))

try:
    asyncio.run(main(*sys.argv[1:]))
except CoTError as error:
    sys.exit(f"rejected: {error}")
"""

# Arguments: directory of artifacts, private key, the claim as JSON, worker id and type.
GENERATE = """
import json, sys
from scriptworker.config import get_unfrozen_copy
from scriptworker.constants import DEFAULT_CONFIG
from scriptworker.context import Context
from scriptworker.cot.generate import generate_cot

directory, key, claim, worker_id, worker_type = sys.argv[1:]
context = Context()
config = get_unfrozen_copy(DEFAULT_CONFIG)
config.update(artifact_dir=directory, ed25519_private_key_path=key, sign_chain_of_trust=True)
config.update(worker_id=worker_id, worker_type=worker_type)
context.config = config
context._claim_task = json.loads(claim)
context.task = context._claim_task["task"]
generate_cot(context)
"""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(None) as world:
        yield world


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return create_signing_key(str(tmp_path / "signing"))


def run(python: Path, *arguments: object) -> tuple[int, str]:
    """Run a program; give how it ended and what it said."""
    argv = [str(python), "-c", *map(str, arguments)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return ended.returncode, ended.stdout + ended.stderr


async def as_upstream(python: Path, world: World, task_id: str, key: SigningKey, directory: Path) -> tuple[int, str]:
    """Let scriptworker fetch and verify."""
    arguments = (UPSTREAM, world.root_url, task_id, key.public.base64, directory, *CONTENTS)
    return await asyncio.to_thread(run, python, *arguments)


async def test_scriptworker_takes_a_run_as_its_upstream(
    world: World, key: SigningKey, scriptworker_python: Path, tmp_path: Path
) -> None:
    task_id = await publish(world, key, CONTENTS)

    code, said = await as_upstream(scriptworker_python, world, task_id, key, tmp_path)

    assert code == 0, said
    assert [line for line in said.splitlines() if line.startswith("cot/")] == [f"cot/{task_id}/{n}" for n in CONTENTS]
    assert (tmp_path / "work" / "cot" / task_id / "public" / "a.txt").read_bytes() == b"content of a"


async def test_scriptworker_rejects_another_key(
    world: World, key: SigningKey, scriptworker_python: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir(mode=0o700)
    task_id = await publish(world, create_signing_key(str(tmp_path / "other" / "key")), CONTENTS)

    code, said = await as_upstream(scriptworker_python, world, task_id, key, tmp_path)

    assert (code, "rejected: " in said) == (1, True), said


async def test_scriptworker_rejects_an_artifact_that_is_not_what_was_signed(
    world: World, key: SigningKey, scriptworker_python: Path, tmp_path: Path
) -> None:
    # Whoever may write to the storage replaces the bytes behind the Queue's back.
    task_id = await publish(world, key, CONTENTS, stored={"public/a.txt": b"another content"})

    code, said = await as_upstream(scriptworker_python, world, task_id, key, tmp_path)

    assert code == 1
    assert "BAD HASH on file" in said


def test_what_scriptworker_writes_is_verified_here(key: SigningKey, scriptworker_python: Path, tmp_path: Path) -> None:
    directory = tmp_path / "artifacts"
    for name, content in {**CONTENTS, "public/logs/live_backing.log": b"log"}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    claim = json.dumps(a_claim_answer())
    worker = ("i-0", IDENTITY.pool.worker_type)
    assert run(scriptworker_python, GENERATE, directory, tmp_path / "signing", claim, *worker) == (0, "")
    pool = TrustPool(IDENTITY.pool, Implementation.SCRIPTWORKER, (TrustKey(key.public.raw),))

    verdict = verify_directory(str(directory), Trust((pool,)), Expected())

    assert verdict.verified, verdict.steps[-1]
    assert verdict.task_id == TASK_ID
    (directory / "public" / "a.txt").write_bytes(b"another content")
    assert not verify_directory(str(directory), Trust((pool,)), Expected()).verified
