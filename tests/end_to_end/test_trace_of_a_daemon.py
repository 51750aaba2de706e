"""A release whose inputs are followed to the tree: build, decision task, `.taskcluster.yml` in a real repository."""

import copy
import hashlib
import json
import signal
import stat
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import taskcluster
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.signing.keys import SigningKey, create_signing_key
from tests.artifacts.other_worker import BUILD_POOL, OtherWorker
from tests.end_to_end.daemon import POLICY, POOL, Here, a_queue
from tests.proxy.harness import an_authority

pytestmark = pytest.mark.sandbox

DECISION_POOL = "test-builders/decision"
URL = "https://git.example.com/us/app"
FILES = {"public/build/app.zip": b"the application" * 1000}
SCRIPT = """\
#!/bin/sh
set -e
mkdir -p ../artifacts/public/build
cd cot
find . -type f | sort | xargs sha256sum | sed "s/^/found: /"
echo signed > ../../artifacts/public/build/result.txt
"""
RULE = """\
    upstream:
      required: true
      worker-pools: [{build_pool}]
      trace:
        decision-pools: [{decision_pool}]
        repositories:
          - {{scheme: https, host: git.example.com, owner: us, repository: app, {place},
             branches: [main, "release/*"], environment-prefix: APP}}
        max-depth: 2
trust:
  worker-pools:
    {build_pool}: {{keys: [{{id: "{build_id}", public: "{build}"}}], implementation: generic-worker}}
    {decision_pool}: {{keys: [{{id: "{decision_id}", public: "{decision}"}}], implementation: generic-worker}}
"""
TREE = """\
version: 1
policy: {pullRequests: public}
tasks:
  $if: 'tasks_for in ["github-push", "github-release", "cron"]'
  then:
    - $let:
        url: {$if: 'tasks_for == "cron"', then: '${repository.url}', else: '${event.repository.html_url}'}
        owner: {$if: 'tasks_for == "github-push"', then: '${event.pusher.email}', else: 'app@example.com'}
        ref:
          $switch:
            'tasks_for == "github-push"': '${event.ref}'
            'tasks_for == "github-release"': 'refs/tags/${event.release.tag_name}'
            $default: 'refs/heads/${push.branch}'
      in:
        taskId: {$eval: 'as_slugid("decision_task")'}
        taskGroupId: {$eval: 'as_slugid("decision_task")'}
        schedulerId: test-scheduler
        created: {$fromNow: ''}
        deadline: {$fromNow: '1 hour'}
        expires: {$fromNow: '3 hours'}
        provisionerId: test-builders
        workerType: decision
        metadata: {name: Decision Task, description: '', owner: '${owner}', source: '${url}'}
        scopes: []
        payload:
          env:
            $merge:
              - APP_HEAD_REPOSITORY: '${url}'
                APP_HEAD_REF: '${ref}'
              - $if: 'tasks_for == "github-push"'
                then: {APP_HEAD_REV: '${event.after}', APP_BASE_REV: '${event.before}'}
                else:
                  APP_HEAD_REV:
                    {$if: 'tasks_for == "cron"', then: '${push.revision}', else: '${event.release.target_commitish}'}
          command: ['decide', '--root-url', '${taskcluster_root_url}']
          features: {chainOfTrust: true}
        extra:
          $merge:
            - tasks_for: '${tasks_for}'
            - {$if: 'tasks_for == "cron"', then: {cron: {$eval: cron}}, else: {}}
"""


def git(repository: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", *identity, *words], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(repository: Path, branch: str, text: str) -> str:
    git(repository, "checkout", "-q", "-B", branch)
    (repository / ".taskcluster.yml").write_text(text)
    git(repository, "add", ".taskcluster.yml")
    git(repository, "commit", "-q", "--allow-empty", "-m", branch)
    return git(repository, "rev-parse", "HEAD")


@dataclass
class Release:
    """A worker that follows inputs, and those whose outputs they are."""

    here: Here
    builds: OtherWorker
    decisions: OtherWorker
    revision: str
    """On main."""
    elsewhere: str
    """On a branch that counts for nothing."""

    def decision(self, **changes: Any) -> dict[str, Any]:
        """Give what the tree makes of a push; keys of the payload's environment can be others."""
        now = datetime.now(UTC)

        def moment(hours: int) -> str:
            return (now + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03}Z"

        environment = {
            "APP_HEAD_REPOSITORY": URL,
            "APP_HEAD_REF": "refs/heads/main",
            "APP_HEAD_REV": self.revision,
            "APP_BASE_REV": "0" * 40,
            **changes.pop("env", {}),
        }
        return {
            "taskQueueId": DECISION_POOL,
            "schedulerId": "test-scheduler",
            **{key: moment(hours) for key, hours in (("created", 0), ("deadline", 1), ("expires", 3))},
            "metadata": {"name": "Decision Task", "description": "", "owner": "dev@example.com", "source": URL},
            "payload": {
                "env": environment,
                "command": ["decide", "--root-url", self.here.running.root_url],
                "features": {"chainOfTrust": True},
            },
            "extra": {"tasks_for": "github-push"},
            **changes,
        }

    async def make(
        self,
        *,
        decision: dict[str, Any] | None = None,
        build: dict[str, Any] | None = None,
        dependencies: int = 0,
        payload: dict[str, Any] | None = None,
        by: OtherWorker | None = None,
        graph: bytes | None = None,
    ) -> str:
        """Let a decision task make builds, each the next one's dependency, and carry all of it out; give the last.

        Args:
            decision: the decision task, where it is not as the tree makes it.
            build: what is changed in the last build after it was decided.
            dependencies: how many builds are before the last one.
            payload: of the builds, as it was decided.
            by: who carries the decision out.
            graph: is uploaded, in place of what is signed.
        """
        by = by or self.decisions
        parent = str(taskcluster.slugId())
        ids = [str(taskcluster.slugId()) for _ in range(dependencies + 1)]
        metadata = {"name": "a build", "description": "", "owner": "a@example.com", "source": URL}
        tasks = {
            task_id: {
                "label": task_id,
                "dependencies": {"before": ids[index - 1]} if index else {},
                "task": {
                    "taskQueueId": BUILD_POOL,
                    "deadline": {"relative-datestamp": "1 hour"},
                    "payload": payload or {"command": ["build"], "features": {"chainOfTrust": True}},
                    "metadata": metadata,
                },
            }
            for index, task_id in enumerate(ids)
        }
        await self.here.client.createTask(parent, decision or self.decision())
        signed = json.dumps(tasks).encode()
        name = "public/task-graph.json"
        await by.carry_out(parent, {name: graph or signed}, signed={name: signed})
        for task_id in ids:
            now = datetime.now(UTC)
            made: dict[str, Any] = copy.deepcopy(tasks[task_id]["task"])  # type: ignore[arg-type] # of mixed values
            made |= {"created": now.isoformat(), "deadline": (now + timedelta(hours=1)).isoformat()}
            made |= {"taskGroupId": parent, "schedulerId": "test-scheduler"}
            made |= {"dependencies": list(tasks[task_id]["dependencies"].values()) or [parent]}  # type: ignore[attr-defined] # the same
            await self.here.client.createTask(task_id, made | ((build or {}) if task_id == ids[-1] else {}))
            await self.builds.carry_out(task_id, FILES)
        return ids[-1]

    async def sign(self, task_id: str) -> str:
        """Create a task that wants the artifacts of another, and give its id."""
        entry = {"taskId": task_id, "taskType": "build", "paths": list(FILES)}
        return await self.here.create({"upstreamArtifacts": [entry]}, dependencies=[task_id])


def write_policy(here: Here, place: str, build: SigningKey, decision: SigningKey) -> None:
    script = here.directory / "sleeper"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    sha256 = hashlib.sha256(SCRIPT.encode()).hexdigest()
    text = POLICY.format(root_url=here.running.root_url, pool=POOL, script=script, sha256=sha256)
    begin, end = text.index("    payload:\n"), text.index("    config:")
    rule = RULE.format(
        place=place,
        build_pool=BUILD_POOL,
        build=build.public.base64,
        build_id=build.public.fingerprint,
        decision_pool=DECISION_POOL,
        decision=decision.public.base64,
        decision_id=decision.public.fingerprint,
    )
    (here.directory / "policy.yml").write_text(
        text[:begin] + "    payload: {type: object, additionalProperties: false}\n" + text[end:] + rule
    )


@pytest.fixture
async def release(tmp_path: Path) -> AsyncIterator[Release]:
    tmp_path.chmod(tmp_path.stat().st_mode | stat.S_IXOTH)
    tree = tmp_path / "tree"
    tree.mkdir()
    git(tree, "init", "-q")
    revision = commit(tree, "main", TREE)
    git(tree, "tag", "-a", "v1", "-m", "v1")
    elsewhere = commit(tree, "try", TREE)
    git(tmp_path, "clone", "-q", "--mirror", str(tree), str(tmp_path / "mirror.git"))
    async with a_queue(tmp_path) as here, aiohttp.ClientSession() as session:
        build, decision = (create_signing_key(str(tmp_path / name)) for name in ("builder", "decider"))
        write_policy(here, f"mirror: {tmp_path}/mirror.git", build, decision)
        await here.start()
        builds = OtherWorker(here.client, session, build)
        decisions = OtherWorker(here.client, session, decision, pool=DECISION_POOL)
        yield Release(here, builds, decisions, revision, elsewhere)


async def test_what_comes_from_the_tree_is_signed_and_every_step_is_published(release: Release) -> None:
    build = await release.make(dependencies=1)

    task_id = await release.sign(build)

    assert await release.here.resolved(task_id) == "completed", await release.here.log_of(task_id)
    log = await release.here.log_of(task_id)
    assert f"github-push of {release.revision}, on refs/heads/main of {URL}" in log
    assert f"it is as .taskcluster.yml of {release.revision} makes it" in log
    assert f"trace: the task {build}: verified" in log
    assert "found: " in log
    url = f"{release.here.running.root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts/public/verification.json"
    async with release.builds.session.get(url) as answer:
        traced = json.loads(await answer.read())["trace"]
    assert [(each["role"], each["verified"]) for each in traced] == [("decision", True), ("task", True), ("task", True)]


async def test_what_cron_made_of_the_tree_is_signed(release: Release) -> None:
    cron = {"task_id": "abc", "job_name": "nightly", "job_symbol": "N", "quoted_args": ""}
    made = release.decision(extra={"tasks_for": "cron", "cron": cron})
    made["metadata"]["owner"] = "app@example.com"
    del made["payload"]["env"]["APP_BASE_REV"]

    task_id = await release.sign(await release.make(decision=made))

    assert await release.here.resolved(task_id) == "completed", await release.here.log_of(task_id)
    assert f"cron of {release.revision}, on refs/heads/main" in await release.here.log_of(task_id)


async def test_what_a_release_made_of_the_tree_is_signed(release: Release) -> None:
    made = release.decision(extra={"tasks_for": "github-release"}, env={"APP_HEAD_REF": "refs/tags/v1"})
    made["metadata"]["owner"] = "app@example.com"
    del made["payload"]["env"]["APP_BASE_REV"]

    task_id = await release.sign(await release.make(decision=made))

    assert await release.here.resolved(task_id) == "completed", await release.here.log_of(task_id)
    assert f"github-release of {release.revision}, on refs/tags/v1" in await release.here.log_of(task_id)


async def test_what_does_not_come_from_the_tree_is_never_signed(release: Release) -> None:
    make, decision = release.make, release.decision
    changed = decision()
    changed["payload"]["command"] = ["decide", "otherwise"]
    as_builder = OtherWorker(release.here.client, release.builds.session, release.builds.key, pool=DECISION_POOL)
    elsewhere = {"APP_HEAD_REV": release.elsewhere}
    interactive = {"command": ["build"], "features": {"chainOfTrust": True, "interactive": True}}
    wrong_pool = OtherWorker(release.here.client, release.builds.session, release.builds.key)
    cases: dict[str, str] = {}
    for why, made in (
        ("graph: NOT PASSED: payload is not as in the graph", await make(build={"payload": {"command": ["evil"]}})),
        ("tree: NOT PASSED: payload is not as .taskcluster.yml", await make(decision=changed)),
        ("tree: NOT PASSED: scopes is not as .taskcluster.yml", await make(decision=decision(scopes=["x:y"]))),
        ("origin: NOT PASSED: the revision", await make(decision=decision(env=elsewhere))),
        (
            "origin: NOT PASSED: refs/heads/try is no branch",
            await make(decision=decision(env={**elsewhere, "APP_HEAD_REF": "refs/heads/try"})),
        ),
        ("its environment names no repository", await make(decision=decision(env={"APP_HEAD_REPOSITORY": "x"}))),
        ("the mirror has no commit", await make(decision=decision(env={"APP_HEAD_REV": "1" * 40}))),
        ("key: NOT PASSED", await make(by=as_builder)),
        ("that of no decision task", await make(decision=decision(taskQueueId=BUILD_POOL), by=wrong_pool)),
        ("interactive: NOT PASSED", await make(payload=interactive)),
        ("cannot be traced: they come from tasks more than 2 steps away", await make(dependencies=3)),
        ("task graph: NOT PASSED: public/task-graph.json has the sha256", await make(graph=b"{}")),
    ):
        cases[await release.sign(made)] = why

    for task_id, why in cases.items():
        assert await release.here.resolved(task_id) == "malformed-payload", why
        log = await release.here.log_of(task_id)
        assert why in log, log
        assert "found: " not in log


@dataclass
class Host:
    """A host that serves a repository as GitHub does: files of every revision, of forks too, and comparisons."""

    release: Release
    compared: dict[str, str]
    asked: list[str]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.raw_path)
        kind, _, rest = request.path.removeprefix("/").partition("/")
        if kind == "raw":
            return web.Response(text=TREE)
        return web.json_response({"status": self.compared.get(rest, "diverged")})


@pytest.fixture
async def by_https(release: Release, tmp_path: Path) -> AsyncIterator[Host]:
    """Give a worker that reads the repository over https, and the host that it reads it from."""
    authority = an_authority(tmp_path)
    host = Host(release, {f"main...{release.revision}": "behind"}, [])
    application = web.Application()
    application.router.add_get("/{path:.*}", host.answer)
    server = TestServer(application, host="localhost")
    await server.start_server(ssl=authority.server("localhost"))
    at = f"https://localhost:{server.port}"
    question = f'{{url: "{at}/compare/{{branch}}...{{revision}}", key: status, values: [identical, behind]}}'
    place = f'https: {{file: "{at}/raw/{{revision}}/.taskcluster.yml", branch: {question}}}'
    (worker,) = release.here.workers
    worker.signal(signal.SIGTERM)
    await worker.exit_code()
    write_policy(release.here, place, release.builds.key, release.decisions.key)
    await release.here.start(SSL_CERT_FILE=str(authority.file))
    yield host
    await server.close()


async def test_a_repository_is_read_over_https_and_forks_count_for_nothing(by_https: Host) -> None:
    release = by_https.release
    good = await release.sign(await release.make())
    fork = await release.sign(await release.make(decision=release.decision(env={"APP_HEAD_REV": "12" * 20})))

    assert await release.here.resolved(good) == "completed", await release.here.log_of(good)
    assert f"it is as .taskcluster.yml of {release.revision} makes it" in await release.here.log_of(good)
    assert await release.here.resolved(fork) == "malformed-payload"
    assert f"origin: NOT PASSED: the revision {'12' * 20} is not on main" in await release.here.log_of(fork)
    assert f"/raw/{'12' * 20}/.taskcluster.yml" not in by_https.asked
    assert f"/raw/{release.revision}/.taskcluster.yml" in by_https.asked
