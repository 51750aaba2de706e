"""The policies that come with the program: valid, admitting what they are for, refusing the rest; and their scripts."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.claim import Json
from secureworker.core.decide import Admitted, decide
from secureworker.core.ids import WorkerIdentity
from secureworker.core.outcome import Refused
from secureworker.core.plan import Plan
from secureworker.core.policy import Policy
from secureworker.core.privileges import Verdict, by_registration, judge
from secureworker.localqueue.expressions import expand
from secureworker.localqueue.settings import Role
from secureworker.policyfile import load, unenforceable
from secureworker.policyfile.cases import read_cases, try_case
from tests.core.claims import NOW, a_claim

NAMES = ("minimal", "release", "demo")
"""Policies whose scripts are shipped with them."""
DRAFTS = ("signing", "store", "push", "scriptworker")
"""Policies whose scripts and pins are their users' to put in."""
FILES: Json = {"README": "hello\n", "src/a.c": "int x;\n"}
SOURCES: dict[str, Json] = {"name": "demo", "version": "1.0", "files": FILES}


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    """Give a copy of the policies that nobody else may write, whatever the checkout's modes are."""
    copy = tmp_path_factory.mktemp("shipped") / "policies"
    shutil.copytree(checkout / "policies", copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode & 0o755)
    return copy


def task(policy: Policy, *scopes: str, payload: dict[str, Json] | None = None, **changes: Any) -> Plan | list[str]:
    """Decide a task that is right for the policy, but for what is given."""
    me = WorkerIdentity(policy.worker_pool, "group", "worker-1")
    right: dict[str, Any] = {
        "pool": policy.worker_pool,
        "scheduler_id": policy.tasks.scheduler_ids[0],
        "project_id": policy.tasks.project_ids[0],
        "scopes": scopes,
        "payload": payload or {},
    }
    decision = decide(a_claim(worker=me, **right | changes), policy, me, NOW)
    match decision:
        case Admitted(plan):
            return plan
        case Refused(reasons):
            return [reason.rule for reason in reasons]


def test_every_policy_that_is_shipped_is_tested_here(checkout: Path) -> None:
    assert {path.stem for path in (checkout / "policies").glob("*.yml")} == {*NAMES, *DRAFTS}
    assert {path.stem for path in (checkout / "policies" / "cases").glob("*.yml")} == {*NAMES, *DRAFTS}


def test_the_installed_package_holds_them() -> None:
    for name in (*NAMES, *DRAFTS):
        assert files("secureworker").joinpath("_policies", f"{name}.yml").is_file()


@pytest.mark.parametrize("name", [*NAMES, *DRAFTS])
def test_every_shipped_policy_admits_and_refuses_what_its_cases_say(policies: Path, name: str) -> None:
    policy = load(str(policies / f"{name}.yml"), host=False)
    cases = read_cases(str(policies / "cases" / f"{name}.yml"))
    verdicts = [try_case(case, policy) for case in cases]
    assert [f"{verdict.case.name}: {verdict.found}" for verdict in verdicts if not verdict.passed] == []
    assert {case.admit for case in cases if case.admit} == {rule.name for rule in policy.scripts}
    assert any(case.refuse for case in cases)


CLAIMS = ("queue:claim-work:scriptworker-k8s/example-signing", "queue:worker-id:group/worker-1")
SENTRY = "auth:sentry:example-signing"


@pytest.mark.parametrize(
    ("held", "surplus", "lacking"),
    [
        ((*CLAIMS, SENTRY), (), ()),
        (CLAIMS, (), (SENTRY,)),
        ((*CLAIMS, SENTRY, "auth:sentry:another"), ("auth:sentry:another",), ()),
        ((*CLAIMS, "auth:sentry:*"), ("auth:sentry:*",), ()),
        (("*",), ("*",), ()),
    ],
)
def test_a_worker_has_the_scopes_that_its_policy_gives_a_reason_for_and_no_others(
    policies: Path, held: tuple[str, ...], surplus: tuple[str, ...], lacking: tuple[str, ...]
) -> None:
    policy = load(str(policies / "scriptworker.yml"), host=False)
    me = WorkerIdentity(policy.worker_pool, "group", "worker-1")
    assert all(each.reason.endswith(".") for each in policy.worker_scopes)
    assert judge(held, me, everybodys=(), extra=policy.worker_scopes) == Verdict(surplus, lacking)


def test_what_a_role_for_all_pools_gives_a_registered_worker_needs_its_reason_in_the_policy(policies: Path) -> None:
    policy = load(str(policies / "scriptworker.yml"), host=False)
    me = WorkerIdentity(policy.worker_pool, "group", "worker-1")
    registered = (*CLAIMS, *by_registration(me))

    def found(*roles: Role) -> Verdict:
        held = expand(registered, roles)
        return judge(held, me, everybodys=(), extra=policy.worker_scopes, registered=True)

    assert found(Role("worker-pool:scriptworker-k8s/*", ("auth:sentry:<..>",))) == Verdict((), ())
    assert found(Role("worker-pool:*", ("secrets:get:<..>",))) == Verdict(
        ("secrets:get:scriptworker-k8s/example-signing",), (SENTRY,)
    )


@pytest.mark.parametrize("name", [*NAMES, *DRAFTS])
def test_every_rule_of_a_shipped_policy_is_explained(policies: Path, name: str) -> None:
    lines = (policies / f"{name}.yml").read_text().splitlines()
    comments = [line for line in lines if line.lstrip().startswith("#")]
    assert lines[0].startswith("# ")
    assert len(comments) * 10 > len([line for line in lines if line.strip()])


@pytest.mark.parametrize("name", NAMES)
def test_a_worker_starts_with_a_policy_whose_scripts_are_shipped(policies: Path, name: str) -> None:
    assert unenforceable(load(str(policies / f"{name}.yml"))) == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_policy_is_valid_and_every_script_in_it_explained(policies: Path, name: str) -> None:
    for rule in load(str(policies / f"{name}.yml")).scripts:
        assert rule.description.endswith(".")
        assert rule.limits.run_time < timedelta(hours=1)


def test_the_minimal_policy_admits_an_empty_payload_and_nothing_else(policies: Path) -> None:
    policy = load(str(policies / "minimal.yml"))
    assert isinstance(task(policy), Plan)
    assert isinstance(task(policy, payload={"maxRunTime": 60}), Plan)
    assert task(policy, payload={"maxRunTime": 61}) == ["scripts.hello.limits.run-time"]
    assert task(policy, payload={"command": "rm"}) == ["scripts.hello.payload"]
    assert task(policy, "queue:create-task:x") == ["tasks.scopes.allow"]
    assert task(policy, scheduler_id="-") == ["tasks.scheduler-ids"]


ACTION, PRODUCT = "project:example:releng:action:", "project:example:releng:product:"


def test_the_release_policy_chooses_by_scope(policies: Path) -> None:
    policy = load(str(policies / "release.yml"))
    payloads: dict[str, dict[str, Json]] = {"source-archive": SOURCES, "release-notes": {"version": "1.0"}}
    for action, payload in payloads.items():
        plan = task(policy, f"{ACTION}{action}", f"{PRODUCT}demo", payload=payload)
        assert isinstance(plan, Plan)
        assert plan.script == action


@pytest.mark.parametrize(
    ("scopes", "rules"),
    [
        ((), ["scripts"]),
        ((f"{ACTION}source-archive",), ["scripts.source-archive.requires-scopes"]),
        ((f"{ACTION}source-archive", f"{PRODUCT}other"), ["scripts.source-archive.requires-scopes"]),
        ((f"{ACTION}source-archive", f"{ACTION}release-notes", f"{PRODUCT}demo"), ["scripts"]),
        ((f"{ACTION}source-archive", f"{PRODUCT}demo", f"{PRODUCT}nightly"), ["tasks.scopes.forbid"]),
        ((f"{ACTION}source-archive", f"{PRODUCT}*"), ["tasks.scopes.forbid"]),
        ((f"{ACTION}push", f"{PRODUCT}demo"), ["scripts"]),
        (("*",), ["tasks.scopes.allow", "tasks.scopes.forbid", "scripts"]),
    ],
)
def test_the_release_policy_refuses(policies: Path, scopes: tuple[str, ...], rules: list[str]) -> None:
    found = task(load(str(policies / "release.yml")), *scopes, payload=SOURCES)
    # `*` stands for roles too: said once, for the same key.
    assert found == rules


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", "a/./b", ".git/config", "a\n", "a\u0000"])
def test_an_archive_holds_no_file_outside_of_itself(policies: Path, name: str) -> None:
    policy = load(str(policies / "release.yml"))
    payload: dict[str, Json] = SOURCES | {"files": {name: "x"}}
    assert task(policy, f"{ACTION}source-archive", f"{PRODUCT}demo", payload=payload) == [
        "scripts.source-archive.payload"
    ]


DEMO = "project:demo:releng:action:"


@pytest.mark.parametrize(
    ("action", "payload"),
    [("build-tarball", SOURCES), ("nosy", {"paths": ["/x"], "addresses": ["localhost:80"]}), ("wait", {})],
)
def test_the_demonstrations_scripts_are_chosen_by_scope(policies: Path, action: str, payload: dict[str, Json]) -> None:
    policy = load(str(policies / "demo.yml"))
    plan = task(policy, f"{DEMO}{action}", payload=payload)
    assert isinstance(plan, Plan)
    assert plan.script == action


def test_the_demonstration_refuses_the_release_certificate(policies: Path) -> None:
    policy = load(str(policies / "demo.yml"))
    refusal = task(policy, f"{DEMO}build-tarball", "project:demo:releng:cert:release", payload=SOURCES)
    assert refusal == ["tasks.scopes.forbid"]


class Contract:
    """The script contract, without a sandbox: for scripts that do nothing but what their task asks for."""

    def __init__(self, directory: Path, scripts: Path, payload: dict[str, Json], config: dict[str, Json]) -> None:
        self.artifacts = directory / "artifacts"
        self.work = directory / "work"
        (self.artifacts / "public" / "logs").mkdir(parents=True)
        self.work.mkdir()
        self.scripts = scripts
        (self.work / "task.json").write_text(json.dumps({"payload": payload}))
        self.config = directory / "config.json"
        given: dict[str, Json] = {"work_dir": str(self.work), "artifact_dir": str(self.artifacts)}
        self.config.write_text(json.dumps(given | config))

    def command(self, script: str) -> list[str]:
        return [str(self.scripts / script), str(self.config)]

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "SECUREWORKER_ARTIFACTS": str(self.artifacts),
            "TASK_ID": "fN1SbArXTPSVFNUvaOlinQ",
            "RUN_ID": "0",
        }
        return subprocess.run(self.command(script), env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def contract(tmp_path: Path, policies: Path) -> Contract:
    payload = SOURCES | {"added": ["a thing"], "seconds": 1}
    return Contract(tmp_path, policies / "scripts", payload, {"product": "Demo"})


def test_hello_says_hello(contract: Contract) -> None:
    done = contract.run("hello")
    assert done.returncode == 0
    assert (contract.artifacts / "public/hello.txt").read_text() == done.stdout


def test_an_archive_holds_the_payloads_files_and_its_checksum_is_right(contract: Contract) -> None:
    assert contract.run("build-tarball").returncode == 0
    build = contract.artifacts / "public/build"
    packed = (build / "demo-1.0.tar.gz").read_bytes()
    assert (build / "SHA256SUMS").read_text() == f"{hashlib.sha256(packed).hexdigest()}  demo-1.0.tar.gz\n"
    with tarfile.open(build / "demo-1.0.tar.gz") as tar:
        assert tar.getnames() == ["demo-1.0/README", "demo-1.0/src/a.c"]


def test_the_same_payload_gives_the_same_archive(contract: Contract) -> None:
    archive = contract.artifacts / "public/build/demo-1.0.tar.gz"
    contract.run("build-tarball")
    first = archive.read_bytes()
    shutil.rmtree(archive.parent)
    contract.run("build-tarball")
    assert archive.read_bytes() == first


def test_the_archives_script_does_not_rely_on_the_policy_to_refuse_names(tmp_path: Path, policies: Path) -> None:
    contract = Contract(tmp_path, policies / "scripts", SOURCES | {"files": {"../x": ""}}, {})
    assert contract.run("build-tarball").returncode == 3


def test_release_notes_are_written(contract: Contract) -> None:
    assert contract.run("release-notes").returncode == 0
    notes = (contract.artifacts / "public/build/RELEASE-NOTES.md").read_text()
    assert notes == "# Demo 1.0\n\n## Added\n\n- a thing\n"


def test_wait_ends_by_itself(contract: Contract) -> None:
    assert contract.run("wait").stdout.splitlines()[-1] == "nobody stopped me"


def test_wait_says_that_it_was_stopped(tmp_path: Path, policies: Path) -> None:
    contract = Contract(tmp_path, policies / "scripts", {}, {})
    with subprocess.Popen(contract.command("wait"), stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "waited 0 s of 600\n"
        waiting.send_signal(signal.SIGTERM)
        assert waiting.communicate(timeout=30)[0].splitlines()[-1] == "got SIGTERM: stopping"
    assert waiting.returncode == 1
