"""The guide and the reference are true: the reference is fresh, the guide's policy is one, drafts are as it says."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from secureworker.cli.main import cli
from secureworker.core.errors import PolicyError
from secureworker.policyfile import load
from secureworker.policyfile.cases import read_cases, try_case
from secureworker.policyfile.load import read_schema
from secureworker.policyfile.migrate import draft_from_scriptworker
from secureworker.policyfile.reference import as_markdown


def test_the_reference_is_what_the_schema_says(checkout: Path) -> None:
    fresh = as_markdown(read_schema("policy"))
    stale = "run `secureworker schema policy --markdown > docs/policy-reference.md`"
    assert (checkout / "docs" / "policy-reference.md").read_text() == fresh, stale
    assert CliRunner().invoke(cli, ["schema", "policy", "--markdown"]).output == fresh


def test_the_guides_policy_is_one_and_its_case_goes_as_it_says(checkout: Path, tmp_path: Path) -> None:
    guide = (checkout / "docs" / "policies.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)   ```", guide, re.DOTALL)
    *policy, cases = ("".join(line[3:] + "\n" for line in block.splitlines()) for block in blocks)
    (tmp_path / "store.yml").write_text("".join(policy))
    (tmp_path / "cases.yml").write_text(cases)
    loaded = load(str(tmp_path / "store.yml"), host=False)
    (case,) = read_cases(str(tmp_path / "cases.yml"))
    assert try_case(case, loaded).passed
    assert not loaded.scripts[0].repeatable


SCRIPTWORKER = b"""\
provisioner_id: scriptworker-k8s
worker_type: example-signing
worker_group: "{{ worker_group }}"
taskcluster_root_url: https://tc.example.com/
credentials: {clientId: worker, accessToken: hunter2}
task_script: [/app/bin/signingscript, /app/configs/worker.json]
task_max_timeout: 3600
artifact_expiration_hours: 336
taskcluster_scope_prefix: "project:example:signing"
"""


def complaints(tmp_path: Path, draft: str) -> list[str]:
    path = tmp_path / "draft.yml"
    path.write_text(draft)
    with pytest.raises(PolicyError) as caught:
        load(str(path), host=False)
    return [problem.partition(": ")[2].partition(": ")[0] for problem in caught.value.problems]


def test_a_draft_carries_over_what_scriptworkers_configuration_says(tmp_path: Path) -> None:
    draft = draft_from_scriptworker(SCRIPTWORKER, "scriptworker.yaml")
    assert "hunter2" not in draft
    for line in (
        'root-url: "https://tc.example.com"',
        'worker-pool: "scriptworker-k8s/example-signing"',
        'allow: ["project:example:signing:*"]',
        "max-run-time: 3600s",
        'command: ["/app/bin/signingscript"]',
        'config: {"taskcluster_scope_prefixes": ["project:example:signing:"]}',
        "expires: 336h",
    ):
        assert line in draft
    assert complaints(tmp_path, draft) == [
        "tasks.scheduler-ids[0]",
        "tasks.project-ids[0]",
        'scripts.main.pinned["/app/bin/signingscript"]',
        'scripts.main.payload["$ref"]',
        "scripts.main.mounts[0].source",
        "scripts.main.repeatable",
    ]


def test_a_draft_of_which_every_todo_is_decided_is_a_policy(tmp_path: Path) -> None:
    draft = draft_from_scriptworker(SCRIPTWORKER, "scriptworker.yaml")
    (tmp_path / "payload.json").write_text("{}")
    for todo, decision in (
        ('scheduler-ids: ["<TODO>"]', "scheduler-ids: [example-level-3]"),
        ('project-ids: ["<TODO>"]', "project-ids: [example]"),
        ('signingscript": "<TODO>"', f'signingscript": {"1" * 64}'),
        ('$ref: "<TODO>"', "$ref: payload.json"),
        ('source: "../<TODO>"', "source: /opt/signingscript"),
        ('repeatable: "<TODO>"', "repeatable: true"),
    ):
        assert todo in draft
        draft = draft.replace(todo, decision)
    (tmp_path / "draft.yml").write_text(draft)
    assert load(str(tmp_path / "draft.yml"), host=False).scripts[0].name == "main"


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"task_script: 'python \"unclosed'",
        b"task_script: 5",
        b"task_script: python -m script worker.yaml",
        b"task_max_timeout: -1\nartifact_expiration_hours: true\nprovisioner_id: '{{ x }}'\nworker_type: [a]",
        b"taskcluster_scope_prefixes: [5, a, 'b:']\ntaskcluster_root_url: $URL",
    ],
)
def test_a_draft_of_little_is_a_draft_with_more_to_decide(tmp_path: Path, content: bytes) -> None:
    assert len(complaints(tmp_path, draft_from_scriptworker(content, "s.yaml"))) >= 6


@pytest.mark.parametrize("content", [b"[]", b"a: [", b"\xff"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scriptworker.yaml"
    path.write_bytes(content)
    result = CliRunner().invoke(cli, ["policy", "from-scriptworker", str(path)])
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")


def test_a_draft_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "scriptworker.yaml"
    path.write_bytes(SCRIPTWORKER)
    result = CliRunner().invoke(cli, ["policy", "from-scriptworker", str(path)])
    assert result.exit_code == 0
    assert result.output.startswith("# A draft")
