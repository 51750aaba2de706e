"""A build in one pool, signed with its worker's own key, is the input of a release in another. Edge cases 13."""

import base64
import hashlib
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from secureworker.signing.keys import SigningKey, create_signing_key
from tests.artifacts.other_worker import BUILD_POOL, OtherWorker
from tests.end_to_end.daemon import POLICY, POOL, Here, Worker, a_queue

pytestmark = pytest.mark.sandbox

# Says what it finds, and that it may change it: scripts unpack and rename within `cot/`.
SCRIPT = """\
#!/bin/sh
set -e
mkdir -p ../artifacts/public/build
cd cot
find . -type f | sort | xargs sha256sum | sed "s/^/found: /"
find . -type l | sed "s/^/a link: /"
for file in $(find . -type f); do mv "$file" "$file.signed"; done
cat */public/build/*.zip.signed > ../../artifacts/public/build/result.txt
"""
INPUTS = """\
    upstream:
      required: true
      worker-pools: [test-builders/b-*]
      max-size: 1MiB
      forbid-features: [interactive]
trust:
  worker-pools:
    {pool}: {{keys: [{{id: "{fingerprint}", public: "{public}"}}], implementation: generic-worker}}
    test-builders/b-mac: {{keys: [{{id: "{other_fingerprint}", public: "{other}"}}], implementation: generic-worker}}
"""
FILES = {"public/build/app.zip": b"the application" * 1000, "public/build/notes.txt": b"what is new\n" * 500}


@dataclass
class Release:
    """A worker that takes inputs, and the one whose outputs they are."""

    here: Here
    worker: Worker
    builds: OtherWorker
    other_key: SigningKey

    async def sign(self, task_id: str, *paths: str, **changes: Any) -> str:
        """Create a task that wants artifacts of another, and give its id."""
        entry = {"taskId": task_id, "taskType": "build", "paths": list(paths), **changes}
        return await self.here.create({"upstreamArtifacts": [entry]}, dependencies=[task_id])

    async def report(self, task_id: str) -> dict[str, Any]:
        """Give what is published about the verification of inputs."""
        url = f"{self.here.running.root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts/public/verification.json"
        async with self.builds.session.get(url) as answer:
            found: dict[str, Any] = json.loads(await answer.read())
        return found

    async def statement(self, task_id: str) -> dict[str, Any]:
        """Give the provenance of a run."""
        url = (
            f"{self.here.running.root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts/public/provenance.sigstore.json"
        )
        async with self.builds.session.get(url) as answer:
            bundle = json.loads(await answer.read())
        payload: dict[str, Any] = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        return payload


def write_policy(here: Here, key: SigningKey, other: SigningKey) -> None:
    script = here.directory / "sleeper"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    sha256 = hashlib.sha256(SCRIPT.encode()).hexdigest()
    text = POLICY.format(root_url=here.running.root_url, pool=POOL, script=script, sha256=sha256)
    begin, end = text.index("    payload:\n"), text.index("    config:")
    trust = INPUTS.format(
        pool=BUILD_POOL,
        public=key.public.base64,
        fingerprint=key.public.fingerprint,
        other=other.public.base64,
        other_fingerprint=other.public.fingerprint,
    )
    (here.directory / "policy.yml").write_text(
        text[:begin] + "    payload: {type: object, additionalProperties: false}\n" + text[end:] + trust
    )


@pytest.fixture
async def release(tmp_path: Path) -> AsyncIterator[Release]:
    tmp_path.chmod(tmp_path.stat().st_mode | stat.S_IXOTH)
    async with a_queue(tmp_path) as here, aiohttp.ClientSession() as session:
        key, other = (create_signing_key(str(tmp_path / name)) for name in ("builder", "other-builder"))
        write_policy(here, key, other)
        yield Release(here, await here.start(), OtherWorker(here.client, session, key), other)


async def test_a_script_finds_what_another_pools_worker_signed_and_the_provenance_names_it(release: Release) -> None:
    build = await release.builds.build(FILES)

    task_id = await release.sign(build, "public/build/app.zip", "public/build/notes.txt")

    assert await release.here.resolved(task_id) == "completed", await release.here.log_of(task_id)
    log = await release.here.log_of(task_id)
    for name, content in FILES.items():
        assert f"found: {hashlib.sha256(content).hexdigest()}  ./{build}/{name}" in log
    assert "a link" not in log
    assert f"inputs of the task {build}, run 0: verified" in log
    assert "12. key: passed" in log
    (reported,) = (await release.report(task_id))["inputs"]
    assert (reported["taskId"], reported["verified"], sorted(reported["artifacts"])) == (build, True, sorted(FILES))
    dependencies = (await release.statement(task_id))["predicate"]["buildDefinition"]["resolvedDependencies"]
    for name, content in FILES.items():
        address = f"{build}/runs/0/artifacts/{name}"
        (found,) = [each for each in dependencies if str(each.get("uri", "")).endswith(address)]
        assert found["digest"]["sha256"] == hashlib.sha256(content).hexdigest()
    # What vouched for them is named too, as it lies there.
    (named,) = [each for each in dependencies if each["name"] == f"statement/{build}/public/chain-of-trust.json"]
    async with release.builds.session.get(named["uri"]) as answer:
        assert hashlib.sha256(await answer.read()).hexdigest() == named["digest"]["sha256"]


async def test_optional_inputs_that_are_missing_or_bad_are_not_there(release: Release) -> None:
    build = await release.builds.build(
        {**FILES, "public/build/bad.bin": b"changed later"}, signed={**FILES, "public/build/bad.bin": b"as it was"}
    )
    entries = [
        {"taskId": build, "taskType": "build", "paths": ["public/build/app.zip"]},
        {"taskId": build, "taskType": "build", "paths": ["public/build/*", "public/none"], "optional": True},
    ]

    task_id = await release.here.create({"upstreamArtifacts": entries}, dependencies=[build])

    assert await release.here.resolved(task_id) == "completed", await release.here.log_of(task_id)
    log = await release.here.log_of(task_id)
    assert log.count("found: ") == 2
    assert "bad.bin is left out: it has the sha256" in log
    assert 'signed no artifact "public/none"' in log


async def test_what_is_not_as_it_was_signed_never_reaches_a_script(release: Release) -> None:
    here, build, name = release.here, release.builds.build, "public/build/app.zip"
    stranger = create_signing_key(str(here.directory / "stranger"))
    feature = {"payload": {"features": {"interactive": True}}}
    cases: dict[str, str] = {}
    for why, made in (
        ("it has the sha256", await build(FILES, signed={**FILES, name: b"another"})),
        ("signature: NOT PASSED", await build(FILES, key=stranger)),
        ("key: NOT PASSED", await build(FILES, key=release.other_key)),
        ("it is about the run 1, not 0", await build(FILES, body={"runId": 1})),
        ("features: NOT PASSED", await build(FILES, definition=feature)),
        ("signed no artifact", await build({})),
        ("statements: NOT PASSED", await build(FILES, publish=False)),
        ("are left for inputs", await build({name: bytes(2**20 + 1)})),
    ):
        cases[await release.sign(made, name)] = why

    for task_id, why in cases.items():
        assert await here.resolved(task_id) == "malformed-payload", why
        log = await here.log_of(task_id)
        assert why in log
        assert "found:" not in log


async def test_a_task_that_is_no_dependency_gives_no_inputs(release: Release) -> None:
    build = await release.builds.build(FILES)
    entry = {"taskId": build, "taskType": "build", "paths": ["public/build/app.zip"]}

    task_id = await release.here.create({"upstreamArtifacts": [entry]})

    assert await release.here.resolved(task_id) == "malformed-payload"
    assert "is none of the task's dependencies" in await release.here.log_of(task_id)
