"""A policy that names a trust file: what it says counts at the next SIGHUP; what it says wrong counts for nothing."""

import signal
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from secureworker.signing.keys import SigningKey, create_signing_key
from tests.artifacts.other_worker import BUILD_POOL, OtherWorker
from tests.end_to_end.daemon import Here, Worker, a_queue, eventually
from tests.end_to_end.test_inputs_of_a_daemon import write_policy

pytestmark = pytest.mark.sandbox

CHANGED = "the policy has changed"
FILE = {"public/build/app.zip": b"the application"}


@dataclass
class Release:
    """A worker whose policy names a trust file, and a build worker with one of two keys."""

    here: Here
    worker: Worker
    builds: OtherWorker
    old: SigningKey
    new: SigningKey

    def trust(self, old: str, new: str) -> None:
        """Write the trust file anew."""
        write_trust(self.here, (self.old, old), (self.new, new))

    async def reload(self, expected: str) -> None:
        before = len(self.worker.log)
        self.worker.signal(signal.SIGHUP)
        await eventually(lambda: self.worker.ended or expected in self.worker.log[before:], f"{expected!r} in the log")
        assert not self.worker.ended, self.worker.log
        if expected == CHANGED:
            # A task that is claimed while the worker begins anew is given back.
            await eventually(lambda: "claiming tasks of" in self.worker.log[before:], "the worker with the new policy")

    async def outcome(self, key: SigningKey) -> str:
        """Sign what a build with this key made; say how that ended, or which step did not pass."""
        builds = OtherWorker(self.here.client, self.builds.session, key)
        build = await builds.build(FILE)
        entry = {"taskId": build, "taskType": "build", "paths": list(FILE)}
        task_id = await self.here.create({"upstreamArtifacts": [entry]}, dependencies=[build])
        state = await self.here.resolved(task_id)
        failed = [line for line in (await self.here.log_of(task_id)).splitlines() if "NOT PASSED" in line]
        return failed[0].split("NOT PASSED: ")[1] if failed else state


def write_trust(here: Here, *keys: tuple[SigningKey, str]) -> None:
    lines = [f'      - {{id: "{key.public.fingerprint}", public: "{key.public.base64}", {rest}}}' for key, rest in keys]
    text = "\n".join(
        [
            "version: 1",
            "worker-pools:",
            f"  {BUILD_POOL}:",
            "    implementation: generic-worker",
            "    keys:",
            *lines,
            "",
        ]
    )
    fresh = here.directory / "trust.new"
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.rename(here.directory / "trust.yml")


@pytest.fixture
async def release(tmp_path: Path) -> AsyncIterator[Release]:
    tmp_path.chmod(tmp_path.stat().st_mode | stat.S_IXOTH)
    async with a_queue(tmp_path) as here, aiohttp.ClientSession() as session:
        old, new = (create_signing_key(str(tmp_path / name)) for name in ("old-key", "new-key"))
        write_policy(here, old, new)
        policy = here.directory / "policy.yml"
        text = policy.read_text()
        policy.write_text(text[: text.index("trust:")] + "trust: {file: trust.yml}\n")
        write_trust(here, (old, "state: active"))
        yield Release(here, await here.start(), OtherWorker(here.client, session, old), old, new)


async def test_a_key_is_rotated_and_then_revoked_without_a_restart(release: Release) -> None:
    assert await release.outcome(release.old) == "completed"
    assert "the signature is not one by" in await release.outcome(release.new)

    release.trust("state: active", "state: next, valid-from: 2020-01-01")
    await release.reload(CHANGED)
    assert await release.outcome(release.new) == "completed"

    release.trust("state: retired, valid-until: 2020-01-01", "state: active")
    await release.reload(CHANGED)
    assert "was valid until 2020-01-01" in await release.outcome(release.old)

    release.trust("state: revoked", "state: active, valid-from: 2999-01-01")
    await release.reload(CHANGED)
    assert "is revoked" in await release.outcome(release.old)
    assert "is valid from 2999-01-01" in await release.outcome(release.new)


async def test_a_trust_file_that_cannot_be_used_changes_nothing(release: Release) -> None:
    release.trust("state: lost", "state: active")
    await release.reload("the old one stays: ")
    assert "trust.file: " in release.worker.log
    assert 'found "lost"' in release.worker.log

    release.trust("state: revoked", "state: active")
    (release.here.directory / "trust.yml").chmod(0o666)
    await release.reload("the old one stays: ")
    assert "may be written by everybody" in release.worker.log

    (release.here.directory / "trust.yml").unlink()
    await release.reload("the old one stays: ")
    assert "trust.yml cannot be read" in release.worker.log

    assert await release.outcome(release.old) == "completed"
    assert not release.worker.ended
