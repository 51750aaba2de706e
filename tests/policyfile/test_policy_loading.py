"""A policy file becomes a policy, or a list of everything that is wrong with it, line by line."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secureworker.core.claim import Json
from secureworker.core.errors import PolicyError
from secureworker.core.ids import Sha256, WorkerPool
from secureworker.core.outcome import Resolution
from secureworker.core.plan import Mount, PinnedFile
from secureworker.core.policy import Always, ScopeEquals
from secureworker.core.templates import Template
from secureworker.policyfile import load
from tests.policyfile.policies import DIGEST, END, SIGN, TEXT, problems, read, with_rule, write


def test_a_policy_is_read_with_its_defaults(tmp_path: Path) -> None:
    policy = read(tmp_path)
    (rule,) = policy.scripts
    assert policy.root_url == "https://tc.example.com"
    assert policy.worker_pool == WorkerPool("releng", "signing")
    assert policy.tasks.max_run_time == timedelta(hours=1)
    assert rule.when == ScopeEquals("project:x:action:", "sign")
    assert [word.source for word in rule.command] == [str(tmp_path / "bin/sign"), "--fast"]
    assert rule.pinned == (PinnedFile(str(tmp_path / "bin/sign"), Sha256(DIGEST)),)
    assert rule.limits.run_time == timedelta(minutes=30)
    assert rule.limits.memory_bytes == 2 * 1024**3
    assert rule.config is None
    assert rule.repeatable
    assert not rule.live_log
    assert not rule.exclusive
    assert policy.max_capacity == 1
    assert rule.outputs.allow == ()


def test_everything_a_rule_can_say_is_read(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir(mode=0o755)
    text = f"""{TEXT}
    requires-scopes: ["project:x:cert:release"]
    environment: {{LANG: C.UTF-8, PYTHONUTF8: "1", GIT_AUTHOR_NAME: releng}}
    config: {{formats: [gpg], nested: {{a: 1.5}}}}
    limits: {{run-time: 1h, memory: 512MiB, processes: 8, cpus: 1.5, disk: 1GB, files: 20, log: 64KiB, open-files: 32}}
    mounts:
      - {{source: tools, target: /opt/tools, read-only: true}}
      - {{source: /usr/share}}
    artifacts:
      allow: ["public/**"]
      max-size: 1MiB
      max-total: 2MiB
      max-count: 3
      expires: 1y2d
      content-types: {{.mar: application/octet-stream}}
      on-failure: discard
    exit-codes: {{4: failed, 255: intermittent-task}}
    on-shutdown: {{grace: 1m30s}}
    repeatable: false
    exclusive: true
    live-log: true
"""
    (rule,) = read(tmp_path, text).scripts
    assert rule.requires_scopes == (Template("project:x:cert:release"),)
    assert rule.environment == (("GIT_AUTHOR_NAME", "releng"), ("LANG", "C.UTF-8"), ("PYTHONUTF8", "1"))
    assert rule.config == Template({"formats": ["gpg"], "nested": {"a": 1.5}})
    assert rule.limits.cpus == 1.5
    assert rule.limits.disk_bytes == 10**9
    assert rule.mounts == (Mount(str(tmp_path / "tools"), "/opt/tools"), Mount("/usr/share", "/usr/share"))
    assert rule.outputs.expires == timedelta(days=367)
    assert rule.outputs.content_types == ((".mar", "application/octet-stream"),)
    assert not rule.outputs.on_failure
    assert rule.exit_codes.resolution(255) is Resolution.INTERMITTENT_TASK
    assert rule.grace == timedelta(seconds=90)
    assert not rule.repeatable
    assert rule.exclusive
    assert rule.live_log


def test_the_digest_is_that_of_the_files_bytes(tmp_path: Path) -> None:
    assert read(tmp_path).sha256 != read(tmp_path, f"{TEXT}\n").sha256


def test_rules_share_what_an_anchor_names(tmp_path: Path) -> None:
    text = TEXT.replace("  sign:", "  sign: &sign") + (
        "  check:\n    <<: *sign\n    when: {scope-prefix: 'project:x:action:', equals: check}\n"
    )
    sign, check = read(tmp_path, text).scripts
    assert check.command == sign.command
    assert check.when == ScopeEquals("project:x:action:", "check")


def test_the_only_script_needs_no_when(tmp_path: Path) -> None:
    text = "\n".join(line for line in TEXT.splitlines() if "when:" not in line)
    assert read(tmp_path, text).scripts[0].when == Always()


def test_one_of_two_scripts_needs_it(tmp_path: Path) -> None:
    second = TEXT[TEXT.index("  sign:") :].replace("sign:\n", "other:\n")
    assert problems(tmp_path, TEXT + "\n".join(line for line in second.splitlines() if "when:" not in line)) == [
        f"{END + 1}: scripts.other: 'when' is missing; only a policy's single script may do without it"
    ]


def test_two_scripts_chosen_by_one_scope_are_refused(tmp_path: Path) -> None:
    second = TEXT[TEXT.index("  sign:") :].replace("  sign:\n", "  other:\n")
    (problem,) = problems(tmp_path, TEXT + second)
    assert problem == f"{END + 3}: scripts.other.when: scripts.sign is chosen by the same already"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("{type: object}", "5", f"{SIGN + 5}: scripts.sign.payload: found 5; expected an object"),
        ("when: {", "when: 5 #{", f"{SIGN + 2}: scripts.sign.when: found 5; expected an object"),
        ("version: 1", "version: 2", "1: version: found 2; expected 1"),
        ("version: 1", "verison: 1", "1: verison: is not a known key; did you mean 'version'?"),
        ("version: 1", "Q: 1", "1: Q: is not a known key; known here are version, root-url"),
        (
            "https://tc.example.com",
            "http://tc.example.com",
            '2: root-url: found "http://tc.example.com"; expected a URL',
        ),
        ("example.com", "example.com/", "2: root-url: found"),
        ("releng/signing", "signing", '3: worker-pool: found "signing"; expected <provisionerId>/<workerType>'),
        ("scheduler-ids: [release]", "scheduler-ids: release", "5: tasks.scheduler-ids: found"),
        ("[release]", "[]", "5: tasks.scheduler-ids: found []; expected a list with 1 or more items"),
        ("scheduler-ids", "scheduler_ids", "5: tasks.scheduler_ids: is not a known key; did you mean 'scheduler-ids'?"),
        ('["project:x:*"]', '["*"]', "8: tasks.scopes.allow[0]: found '*', which covers a whole kind of scopes"),
        ('["project:x:*"]', '["project:*"]', "8: tasks.scopes.allow[0]: found 'project:*', which covers"),
        ('["project:x:*"]', '["proj*"]', "8: tasks.scopes.allow[0]: found 'proj*', which covers"),
        (
            '["project:x:*"]',
            '["project:x:*", "assume:a:b"]',
            "8: tasks.scopes.allow[1]: found 'assume:a:b': what a role",
        ),
        ('["project:x:*"]', '["project:x:**", "project:x:*"]', "8: tasks.scopes.allow[0]: found 'project:x:**'; one *"),
        ("nightly*", "nightly**", "9: tasks.scopes.forbid[0]: found"),
        ("max-run-time: 1h", "max-run-time: 60", "10: tasks.max-run-time: found 60; expected a text"),
        (
            "max-run-time: 1h",
            "max-run-time: 1 hour",
            '10: tasks.max-run-time: found "1 hour"; expected a duration like',
        ),
        ("scripts:\n", "scripts: 5\nX:\n", "11: scripts: found 5; expected an object"),
        ("  sign:\n", "  Sign:\n", f"{SIGN}: scripts.Sign: found this key; expected a name of lower-case letters"),
        ("description: Signs.", "description: 5", f"{SIGN + 1}: scripts.sign.description: found 5; expected a text"),
        ("action:", "act*", f"{SIGN + 2}: scripts.sign.when: found 'project:x:act*sign'; expected a scope without *"),
        ("equals: sign", "equals: s*", f"{SIGN + 2}: scripts.sign.when: found 'project:x:action:s*'"),
        ('prefix: "project:x', 'prefix: "project:y', f"{SIGN + 2}: scripts.sign.when: no task can have the scope"),
        ("x:action", "x:cert:nightly", f"{SIGN + 2}: scripts.sign.when: no task can have the scope"),
        ("--fast", "'${x}'", f'{SIGN + 3}: scripts.sign.command[1]: found "x" in "x}}"; expected one of payload'),
        ("[bin/sign, --fast]", "bin/sign", f'{SIGN + 3}: scripts.sign.command: found "bin/sign"; expected a list'),
        (
            "[bin/sign",
            "[/bin/sh",
            f'{SIGN + 3}: scripts.sign.command[0]: the executable "/bin/sh" is not pinned; add it',
        ),
        ("[bin/sign", "[../sign", f'{SIGN + 3}: scripts.sign.command[0]: the executable "../sign" is not pinned'),
        (
            DIGEST,
            "0" * 64,
            f'{SIGN + 4}: scripts.sign.pinned["bin/sign"]: DIR/bin/sign has sha256 {DIGEST}, the policy ',
        ),
        (DIGEST, "abc", f'{SIGN + 4}: scripts.sign.pinned["bin/sign"]: found "abc"; expected 64 lower-case'),
        ("{bin/sign: ", "{bin/sing: ", f'{SIGN + 4}: scripts.sign.pinned["bin/sing"]: DIR/bin/sing cannot be read'),
        ("{bin/sign: ", "{/: ", f'{SIGN + 4}: scripts.sign.pinned["/"]: / cannot be read: it is no regular file'),
        (
            "{bin/sign: ",
            "{../x: ",
            f"{SIGN + 4}: scripts.sign.pinned[\"../x\"]: found '../x'; expected a path that stays",
        ),
        (
            "{bin/sign: ",
            "{/bin/../x: ",
            f"{SIGN + 4}: scripts.sign.pinned[\"/bin/../x\"]: found '/bin/../x'; expected '/x'",
        ),
        (
            "{bin/sign",
            "{./bin/sign: DIG, bin/sign",
            f'{SIGN + 4}: scripts.sign.pinned["bin/sign"]: this file is pinned twice',
        ),
        (
            "{type: object}",
            "{type: obj}",
            f'{SIGN + 5}: scripts.sign.payload.type: found "obj"; this is no JSON schema',
        ),
        ("{type: object}", "{$ref: '#'}", f"{SIGN + 5}: scripts.sign.payload: its references lead round in a circle"),
        (
            "{type: object}",
            "{pattern: '(?=x)'}",
            f'{SIGN + 5}: scripts.sign.payload: found "(?=x)"; expected a regular',
        ),
        (
            "{type: object}",
            "{$ref: ../x.json}",
            f"{SIGN + 5}: scripts.sign.payload[\"$ref\"]: found '../x.json'; expected",
        ),
        (
            "{type: object}",
            "{$ref: /x.json}",
            f'{SIGN + 5}: scripts.sign.payload["$ref"]: found "/x.json"; expected a rel',
        ),
        (
            "{type: object}",
            "{$ref: 'http://x/'}",
            f'{SIGN + 5}: scripts.sign.payload["$ref"]: found "http://x/"; expected',
        ),
        ("{type: object}", "{$ref: no.json}", f"{SIGN + 5}: scripts.sign.payload: DIR/no.json cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_line_key_and_what_would_be_right(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in TEXT
    found = problems(tmp_path, TEXT.replace(old, new.replace("DIG", DIGEST), 1))
    assert any(line.startswith(problem) for line in found), found


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("comand: [x]", "scripts.sign.comand: is not a known key; did you mean 'command'?"),
        ("requires-scopes: ['queue:x']", "scripts.sign.requires-scopes[0]: no task can have the scope 'queue:x'"),
        (
            "requires-scopes: ['${x}']",
            'scripts.sign.requires-scopes[0]: found "x" in "x}"; expected one of payload, sandbox',
        ),
        ("environment: {LD_PRELOAD: x}", "scripts.sign.environment.LD_PRELOAD: this variable makes programs load"),
        ("environment: {PYTHONPATH: x}", "scripts.sign.environment.PYTHONPATH: this variable makes programs load"),
        ("environment: {BASH_ENV: x}", "scripts.sign.environment.BASH_ENV: this variable makes programs load"),
        ("environment: {NODE_OPTIONS: x}", "scripts.sign.environment.NODE_OPTIONS: this variable makes programs load"),
        ("environment: {GIT_SSH_COMMAND: x}", "scripts.sign.environment.GIT_SSH_COMMAND: this variable makes programs"),
        ("environment: {HOME: x}", "scripts.sign.environment.HOME: the worker sets this variable itself; remove it"),
        ("environment: {TASKCLUSTER_X: x}", "scripts.sign.environment.TASKCLUSTER_X: the worker sets this variable"),
        ("environment: {A-B: x}", "scripts.sign.environment.A-B: found this key; expected letters, digits"),
        ("config: {work_dir: x}", "scripts.sign.config.work_dir: the worker sets this key itself; remove it"),
        ("limits: {run-time: 2h}", "scripts.sign.limits.run-time: found 2h; expected at most tasks.max-run-time, 1h"),
        ("limits: {run-time: 0s}", 'scripts.sign.limits.run-time: found "0s"; expected a duration like 30m'),
        ("limits: {memory: 1MiB}", "scripts.sign.limits: memory is 1048576 bytes, below 16777216"),
        ("limits: {memory: 1Gib}", 'scripts.sign.limits.memory: found "1Gib"; expected a size like 512MiB'),
        ("limits: {processes: true}", "scripts.sign.limits.processes: found true; expected a whole number"),
        ("mounts: [{source: /run/docker.sock}]", "scripts.sign.mounts[0].source: /run/docker.sock holds more of the"),
        ("mounts: [{source: /}]", "scripts.sign.mounts[0].source: / holds more of the host than a script may see"),
        ("mounts: [{source: ../x}]", "scripts.sign.mounts[0].source: found '../x'; expected a path that stays"),
        ("mounts: [{source: /usr/share, target: /usr}]", "scripts.sign.mounts[0].target: /usr is the sandbox's own"),
        ("mounts: [{source: /usr/share, target: /a/../b}]", "scripts.sign.mounts[0].target: found '/a/../b'; expected"),
        (
            "mounts: [{source: /usr/share, target: /tmp/x}]",
            "scripts.sign.mounts[0].target: /tmp/x is the sandbox's own",
        ),
        (
            "mounts: [{source: /usr/share}, {source: /usr/share}]",
            "scripts.sign.mounts[1]: two mounts are at /usr/share",
        ),
        ("mounts: [{source: /usr/nope}]", "scripts.sign.mounts[0].source: /usr/nope does not exist on this host"),
        (
            "mounts: [{source: /dev/null}]",
            "scripts.sign.mounts[0].source: /dev/null is neither a directory nor a regular",
        ),
        (
            "mounts: [{source: /usr/share, read-only: false}]",
            "scripts.sign.mounts[0].read-only: found false; expected tr",
        ),
        (
            "artifacts: {allow: [public/../x]}",
            "scripts.sign.artifacts.allow[0]: found 'public/../x'; expected a pattern",
        ),
        ("artifacts: {max-size: 1MiB}", "scripts.sign.artifacts.allow: is missing"),
        (
            "artifacts: {allow: [x], max-size: 99GiB}",
            "scripts.sign.artifacts.max-size: one artifact may be larger than",
        ),
        ("exit-codes: {0: failed}", "scripts.sign.exit-codes.0: found this key; expected an exit code from 1 to 255"),
        ("exit-codes: {4: superseded}", 'scripts.sign.exit-codes.4: found "superseded"; expected one of "completed"'),
        ("exclusive: 1", "scripts.sign.exclusive: found 1; expected true or false"),
        ("repeatable: no", 'scripts.sign.repeatable: found "no"; expected true or false'),
        ("on-shutdown: {grace: 5}", "scripts.sign.on-shutdown.grace: found 5; expected a text"),
        ("when: {}", "scripts: when: this key is here twice"),
    ],
)
def test_a_rule_that_says_something_wrong_is_refused_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    found = problems(tmp_path, with_rule(line))
    where = f"{END + 1}: "
    assert any(each.startswith(where + problem.removeprefix("scripts: ")) for each in found), found


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = TEXT.replace("version: 1", "version: 3").replace(DIGEST, "0" * 64).replace("1h", "x")
    found = problems(tmp_path, text + "    environment: {LD_PRELOAD: x}\n    unknown: 1\n")
    assert [int(problem.partition(":")[0]) for problem in found] == [1, 10, SIGN + 4, END + 1, END + 2]


def test_a_script_that_may_not_be_executed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "bin/sign").chmod(0o644)
    with pytest.raises(PolicyError, match=r"may not be executed; chmod \+x"):
        load(path)


@pytest.mark.parametrize("place", ["release.yml", "bin", "bin/sign", "."])
def test_what_others_could_change_is_refused(tmp_path: Path, place: str) -> None:
    path = write(tmp_path)
    (tmp_path / place).chmod(0o777)
    with pytest.raises(PolicyError, match="may be written by everybody"):
        load(path)
    assert load(path, host=False).scripts


def test_a_link_out_of_the_policys_directory_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "policy"
    inside.mkdir(mode=0o755)
    (tmp_path / "outside.json").write_text("{}")
    (inside / "schema.json").symlink_to("../outside.json")
    found = problems(inside, TEXT.replace("{type: object}", "{$ref: schema.json}"))
    assert "expected a path that stays in the policy's directory" in found[0]


def test_a_schema_that_others_could_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("{}")
    (tmp_path / "schema.json").chmod(0o666)
    assert "may be written by everybody" in problems(tmp_path, TEXT.replace("{type: object}", "{$ref: schema.json}"))[0]


def test_schemas_refer_to_each_other_within_the_policys_directory(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir(mode=0o755)
    schemas: dict[str, dict[str, Json]] = {
        "schemas/a.json": {"properties": {"x": {"$ref": "b.yml#/$defs/x"}, "y": {"$ref": "../c.json"}}},
        "c.json": {"$id": "https://example.com/c", "properties": {"z": {"$ref": "https://example.com/c#/$defs/z"}}},
    }
    schemas["c.json"]["$defs"] = {"z": {"const": 2}}
    for name, schema in schemas.items():
        (tmp_path / name).write_text(json.dumps(schema))
    (tmp_path / "schemas/b.yml").write_text("$defs: {x: {const: 1}, back: {$ref: a.json}}\n")
    for path in tmp_path.rglob("*.*"):
        path.chmod(0o644)
    (rule,) = read(tmp_path, TEXT.replace("{type: object}", "{$ref: schemas/a.json}")).scripts
    assert rule.payload_schema.problems({"x": 1, "y": {"z": 2}}) == ()
    assert [problem.path for problem in rule.payload_schema.problems({"x": 2, "y": {"z": 1}})] == [("x",), ("y", "z")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"$ref": "../x.json"}', "expected a path that stays in the policy's directory"),
        ('{"$ref": "file:///etc/passwd"}', "expected a relative path in the policy's directory"),
        ('{"$ref": "a%2e.json"}', "expected a relative path in the policy's directory"),
        ('{"$id": "https://example.com/a", "$ref": "b.json"}', "a schema with a $id may refer to itself only"),
        ('{"items": [{"$ref": "no.json"}]}', "cannot be read"),
        ("[]", "holds no JSON schema"),
        ("{", "not JSON"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 5000, "nested deeper"),
        ('{"not": ' * 100 + "{}" + "}" * 100, "nested deeper"),
        ("{}" + " " * 1_100_000, "larger than"),
    ],
)
def test_a_schema_file_that_cannot_be_used_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "s.json").write_text(content)
    (tmp_path / "s.json").chmod(0o644)
    (found,) = problems(tmp_path, TEXT.replace("{type: object}", "{$ref: s.json}"))
    assert problem in found


def test_a_fragment_of_a_file_is_refused_as_a_whole_schema(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{}")
    (tmp_path / "s.json").chmod(0o644)
    (found,) = problems(tmp_path, TEXT.replace("{type: object}", "{$ref: 's.json#/$defs/a'}"))
    assert "without a #fragment" in found


def test_more_schemas_than_anybody_reviews_are_refused(tmp_path: Path) -> None:
    for number in range(120):
        (tmp_path / f"s{number}.json").write_text(f'{{"not": {{"$ref": "s{number + 1}.json"}}}}')
        (tmp_path / f"s{number}.json").chmod(0o644)
    (found,) = problems(tmp_path, TEXT.replace("{type: object}", "{$ref: s0.json}"))
    assert "more than 100 files" in found


def test_an_executable_that_is_gone_is_said_once(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "bin/sign").unlink()
    with pytest.raises(PolicyError) as caught:
        load(path)
    assert len(caught.value.problems) == 1


def test_elsewhere_the_host_is_not_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path, with_rule("mounts: [{source: /opt/of-another-host}]").replace(DIGEST, "0" * 64))
    (tmp_path / "bin/sign").unlink()
    assert load(path, host=False).scripts[0].mounts == (Mount("/opt/of-another-host", "/opt/of-another-host"),)


def test_a_fifo_in_a_files_place_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "bin/sign").unlink()
    os.mkfifo(tmp_path / "bin/sign", 0o755)
    with pytest.raises(PolicyError, match="it is no regular file"):
        load(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"\xff", "not UTF-8"),
        (b"a: [", "not YAML"),
        (b"5", "found 5; expected an object"),
        (b"x" * 2_000_000, "larger than"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = write(tmp_path)
    Path(path).write_bytes(content)
    with pytest.raises(PolicyError, match=problem):
        load(path)


def test_a_policy_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.yml cannot be read: No such file or directory"):
        load(str(tmp_path / "none.yml"))


LINES = TEXT.splitlines()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    number=st.integers(0, len(LINES) - 1),
    start=st.integers(0, 60),
    piece=st.text(alphabet="abz09:-*[]{}\"'&!|>%#,$ \n\t\\\x00é", max_size=8),
)
def test_whatever_is_written_there_is_a_policy_or_a_policy_error(
    tmp_path: Path, number: int, start: int, piece: str
) -> None:
    line = LINES[number]
    lines = [*LINES[:number], line[:start] + piece + line[start + len(piece) // 2 :], *LINES[number + 1 :]]
    path = write(tmp_path, "\n".join(lines))
    try:
        load(path)
    except PolicyError as error:
        assert error.problems  # noqa: PT017 - an error is one of the two right answers


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\u2066", "\ufeff", "\xad", "\U000e0061"])
@pytest.mark.parametrize("place", ["# reviewed\n", "description: Signs"])
def test_what_a_reviewer_cannot_see_is_refused(tmp_path: Path, hidden: str, place: str) -> None:
    text = f"# a policy\n# reviewed\n{TEXT}".replace(place, place.rstrip() + hidden + place[len(place.rstrip()) :])
    (problem,) = problems(tmp_path, text)
    assert f"found the invisible character U+{ord(hidden):04X}" in problem
    assert problem.startswith("2:" if place.startswith("#") else "15:")
