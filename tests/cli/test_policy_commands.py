"""check, explain, policy and schema, as their users meet them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from secureworker.cli.main import cli
from tests.policyfile.policies import DIGEST, TEXT, with_rule, write

TASK: dict[str, Any] = {"scopes": ["project:x:action:sign"], "payload": {}}


def secureworker(*arguments: str, text: str | None = None) -> Result:
    """Run a command in this process."""
    result = CliRunner().invoke(cli, arguments, input=text)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def put(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text)
    path.chmod(0o644)
    return str(path)


def test_check_says_in_plain_words_what_a_policy_allows(tmp_path: Path) -> None:
    result = secureworker("check", "--policy", write(tmp_path))
    assert result.exit_code == 0
    for sentence in (
        "claims tasks of the worker pool releng/signing only",
        "its schedulerId is release",
        "no scope it has reaches into project:x:cert:nightly*",
        "sign: Signs.",
        f"exactly as sha256 {DIGEST}",
        "the one scope that the task has under project:x:action: is project:x:action:sign",
        "nothing: it has no network",
        "nothing but its log",
        "the schema admits keys that it does not name",
        "is valid (sha256 ",
    ):
        assert sentence in result.output


TRACE = (
    "{decision-pools: [release-3/*], repositories: [{scheme: https, host: h, owner: o, repository: r, mirror: /, "
    "branches: [main], environment-prefix: APP}]}"
)
EVERYTHING = """\
    requires-scopes: ["project:x:cert:release", {$eval: payload.scopes}]
    environment: {LANG: C}
    config: {formats: [gpg]}
    secrets: {key: "credential:autograph"}
    limits: none
    mounts: [{source: /usr/share, target: /opt/share}]
    network: {allow: ["autograph.example.com:443"]}
    taskcluster: {routes: [GET /api/secrets/v1/secret/x*], scopes: ["project:x:y"]}
    upstream: {required: true, worker-pools: [release-3/*], max-size: 1GiB, forbid-features: [interactive]}
    artifacts: {allow: ["public/**", "releng/x", "**"], expires: 1y, on-failure: discard}
    exit-codes: {4: completed}
    repeatable: false
trust:
  worker-pools:
    release-3/b-linux:
      keys:
        - id: "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg"
          public: "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
          state: revoked
      implementation: generic-worker
"""
TASKS = """\
  sources: [{scheme: https, host: github.com, owner: o, repository: r}]
  definition: {required: [tags]}
  deny:
    - {reason: never, scopes: ["a:b"], scheduler-ids: [s], project-ids: [p, q], definition: {required: [x]}}
"""


def everything() -> str:
    """Give a policy with every key there is."""
    return TEXT.replace("  max-run-time", f"{TASKS}  max-run-time") + EVERYTHING


def test_check_says_everything_that_a_policy_can_say(tmp_path: Path) -> None:
    result = secureworker("check", "--policy", write(tmp_path, everything()))
    assert result.exit_code == 0
    for sentence in (
        "it comes from https://github.com/o/r",
        "its whole definition is as a JSON schema says",
        "a scope that reaches into a:b and the schedulerId s and the projectId one of p, q and a definition",
        'needs        the scope project:x:cert:release\n               the scope {"$eval": "payload.scopes"}',
        "the environment variable LANG=C",
        "a config file with formats",
        "the secret credential:autograph as the file /run/secrets/key",
        "it must have artifacts of release-3/*, up to 1GiB",
        "no inputs of tasks that used interactive",
        "/usr/share of the host as /opt/share, read-only",
        "autograph.example.com:443",
        "Taskcluster: GET /api/secrets/v1/secret/x",
        "Taskcluster with the scope project:x:y, as far as the task has it",
        "nothing else is limited",
        "releng/x (readable only with a scope)",
        "kept for 1y, and nothing if it failed",
        "as completed with exit code 4",
        "it is not started again",
        "release-3/b-linux (generic-worker), signed by SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg (revoked)",
        "4 means completed: is that no failure?",
        "** stands for public and private names alike",
    ):
        assert sentence in result.output


def test_check_as_json_holds_the_whole_policy(tmp_path: Path) -> None:
    answer = json.loads(secureworker("check", "--json", "--policy", write(tmp_path, everything())).output)
    assert answer["valid"]
    assert answer["unenforceable"] == []
    script = answer["policy"]["scripts"]["sign"]
    assert script["when"] == {"scope-prefix": "project:x:action:", "equals": "sign"}
    assert script["upstream"]["max-size"] == "1GiB"
    assert script["limits"]["enforced"] is False
    assert answer["policy"]["trust"]["release-3/b-linux"]["keys"][0]["state"] == "revoked"


def test_check_shows_every_problem_and_ends_with_2(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT.replace("version: 1", "version: 2").replace("1h", "x"))
    result = secureworker("check", "--policy", path)
    assert result.exit_code == 2
    assert f"{path}:1: version: found 2; expected 1" in result.output
    assert f"{path} is not valid: 2 problems." in result.output
    assert len(json.loads(secureworker("check", "--json", "--policy", path).output)["problems"]) == 2


def test_what_is_unwise_fails_only_a_strict_check(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert secureworker("check", "--policy", path).exit_code == 0
    assert secureworker("check", "--strict", "--policy", path).exit_code == 1
    wise = write(tmp_path, TEXT.replace("{type: object}", "{type: object, additionalProperties: false}"))
    assert secureworker("check", "--strict", "--policy", wise).exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        ("https://tc.example.com", "http://localhost:80", "root-url: without TLS"),
        ("--fast", "'${payload.x}'", "scripts.sign.command[1]: the payload gives the whole argument"),
        (
            "    command",
            "    mounts: [{source: /usr, target: /opt/usr}]\n    command",
            "/usr is a whole tree of the host",
        ),
        ('{scope-prefix: "project:x:action:", equals: sign}', "{payload-field: a, equals: b}", "no scope is needed"),
        ("bin/sign", "bin/python3.11", "python3.11 is an interpreter"),
    ],
)
def test_what_is_legal_and_unwise_is_named(tmp_path: Path, old: str, new: str, warning: str) -> None:
    path = write(tmp_path, TEXT.replace(old, new))
    assert warning in secureworker("check", "--no-host", "--policy", path).output


@pytest.mark.parametrize(
    ("word", "schema", "warned"),
    [
        ("${payload.a}", "{properties: {a: {enum: [x, y]}}}", False),
        ("${payload.a}", "{properties: {a: {type: string, pattern: '^[a-z]'}}}", False),
        ("${payload.a}", "{properties: {a: {type: string}}}", True),
        ("${payload.a}", "{properties: {a: {$ref: '#/$defs/a'}}, $defs: {a: {enum: [x]}}}", True),
        ("${payload.b}", "{properties: {a: {enum: [x, y]}}}", True),
        ("${lowercase(payload.a)}", "{properties: {a: {enum: [x, y]}}}", True),
        ("--a=${payload.a}", "{}", False),
    ],
)
def test_an_argument_that_may_be_an_option_is_named(tmp_path: Path, word: str, schema: str, *, warned: bool) -> None:
    text = TEXT.replace("--fast", f"'{word}'").replace("{type: object}", schema)
    output = secureworker("check", "--policy", write(tmp_path, text)).output
    assert ("may begin with a dash" in output) is warned


CLOSED = "{properties: {channel: {}}, additionalProperties: false}"


@pytest.mark.parametrize(
    ("rule", "schema", "warning"),
    [
        (
            "requires-scopes: ['x:${payload.chanel}']",
            CLOSED,
            "payload.chanel is no key of the payload, by its schema; did you mean payload.channel?",
        ),
        (
            "config: {a: [{$if: payload.zz, then: 1, else: 2}]}",
            CLOSED,
            "scripts.sign.config: payload.zz is no key of the payload, by its schema; it has channel",
        ),
        ("config: {a: '${payload.channel}', b: {$eval: payload.maxRunTime}, c: payload.example}", CLOSED, ""),
        ("config: {a: '${payload.zz}'}", "{properties: {channel: {}}}", ""),
        ("config: {a: '${payload.zz}'}", CLOSED[:-1] + ", patternProperties: {z: {}}}", ""),
    ],
)
def test_a_key_that_no_payload_has_is_named(tmp_path: Path, rule: str, schema: str, warning: str) -> None:
    text = TEXT.replace("{type: object}", f"{schema}\n    {rule}")
    output = secureworker("check", "--policy", write(tmp_path, text)).output
    assert warning in output
    assert ("is no key of the payload" in output) is bool(warning)


def test_one_of_a_thing_is_not_called_many(tmp_path: Path) -> None:
    rule = "limits: {cpus: 1}\n    artifacts: {allow: [public/a], max-count: 1}"
    output = secureworker("check", "--policy", write(tmp_path, with_rule(rule))).output
    assert " 1 processor, " in output
    assert "up to 1 file of " in output


def test_a_repeatable_script_that_reaches_out_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, with_rule("network: {allow: ['a.example.com:443']}"))
    assert "an interrupted run is started again" in secureworker("check", "--policy", path).output


def test_a_live_log_is_said_and_named_beside_secrets(tmp_path: Path) -> None:
    shown = "with its log shown all the while to whoever has the address"
    warning = "what masking misses is read before anybody can hold it back"
    output = secureworker("check", "--policy", write(tmp_path, with_rule("live-log: true"))).output
    assert shown in " ".join(output.split())
    assert warning not in output
    rule = "live-log: true\n    secrets: {token: 'credential:token'}"
    assert warning in secureworker("check", "--policy", write(tmp_path, with_rule(rule))).output


@pytest.mark.parametrize(("size", "warned"), [("1TiB", True), ("1MiB", False)])
def test_inputs_that_would_fill_the_scripts_disk_are_named(tmp_path: Path, size: str, *, warned: bool) -> None:
    trust = EVERYTHING[EVERYTHING.index("trust:") :]
    path = write(tmp_path, with_rule(f"upstream: {{worker-pools: [release-3/*], max-size: {size}}}") + trust)
    output = secureworker("check", "--policy", path).output
    assert ("inputs of this size use up limits.disk" in output) is warned


def test_elsewhere_check_does_not_look_at_the_host(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT.replace(DIGEST, "0" * 64))
    assert secureworker("check", "--policy", path).exit_code == 2
    assert secureworker("check", "--no-host", "--policy", path).exit_code == 0


def test_explain_prints_the_plan_of_a_task_that_is_admitted(tmp_path: Path) -> None:
    task = put(tmp_path, "task.json", json.dumps(TASK))
    result = secureworker("explain", "--policy", write(tmp_path, with_rule("config: {a: 1}")), task)
    assert result.exit_code == 0
    assert "admitted by scripts.sign: Signs." in result.output
    assert '"--fast",\n               "/task/config.json"' in result.output


def test_explain_shows_which_inputs_a_task_wants(tmp_path: Path) -> None:
    build = "TyRoGA_OS3W2QMCEuF1icw"
    wanted = {"taskId": build, "taskType": "build", "paths": ["public/*.zip"], "optional": True}
    task = {**TASK, "dependencies": [build], "payload": {**TASK["payload"], "upstreamArtifacts": [wanted]}}
    trust = EVERYTHING[EVERYTHING.index("trust:") :]
    (tmp_path / "HEAD").touch()
    trace = TRACE.replace("mirror: /", f"mirror: {tmp_path}")
    path = write(tmp_path, with_rule(f"upstream: {{worker-pools: [release-3/*], trace: {trace}}}") + trust)
    result = secureworker("explain", "--json", "--policy", path, "-", text=json.dumps(task))
    plan = json.loads(result.output)["plan"]
    assert plan["inputs"] == [{"taskId": build, "paths": ["public/*.zip"], "optional": True}]
    assert plan["trace"]["repositories"][0]["url"] == "https://h/o/r"


def test_explain_names_every_rule_that_refuses(tmp_path: Path) -> None:
    task = {**TASK, "schedulerId": "other", "payload": {"maxRunTime": 0}}
    result = secureworker("explain", "--policy", write(tmp_path), "-", text=json.dumps(task))
    assert result.exit_code == 1
    assert "  - tasks.scheduler-ids: " in result.output
    assert "  - scripts.sign.payload: payload.maxRunTime: found 0" in result.output


def test_explain_as_json(tmp_path: Path) -> None:
    path = write(tmp_path)
    answer = json.loads(secureworker("explain", "--json", "--policy", path, "-", text=json.dumps(TASK)).output)
    assert answer["plan"]["script"] == "sign"
    answer = json.loads(secureworker("explain", "--json", "--policy", path, "-", text="{}").output)
    assert answer["reasons"][0]["rule"] == "scripts"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', " " * 11_000_000])
def test_explain_says_what_is_no_task(tmp_path: Path, text: str) -> None:
    result = secureworker("explain", "--policy", write(tmp_path), "-", text=text)
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")


@pytest.mark.parametrize("task", [{"scopes": 5}, {"payload": None}, {"metadata": 5}, {"taskQueueId": "x"}])
def test_explain_refuses_what_the_queue_would_not_take(tmp_path: Path, task: dict[str, Any]) -> None:
    result = secureworker("explain", "--policy", write(tmp_path), "-", text=json.dumps(task))
    assert result.exit_code == 1
    assert "this is no task definition" in result.output


def test_explain_refuses_another_pools_task(tmp_path: Path) -> None:
    task = {**TASK, "taskQueueId": "other/pool", "provisionerId": "other", "workerType": "pool"}
    assert "worker-pool: " in secureworker("explain", "--policy", write(tmp_path), "-", text=json.dumps(task)).output


def test_explain_says_that_a_task_cannot_be_fetched(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT.replace("https://tc.example.com", "http://127.0.0.1:9"))
    result = secureworker("explain", "--policy", path, "fN1SbArXTPSVFNUvaOlinQ")
    assert result.exit_code == 2
    assert "cannot be read from http://127.0.0.1:9" in result.output


def test_schemas_are_printed(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert json.loads(secureworker("schema", "policy").output)["title"] == "secureworker policy"
    assert json.loads(secureworker("schema", "cases").output)["title"] == "secureworker policy cases"
    assert json.loads(secureworker("schema", "payload", "sign", "--policy", path).output) == {"type": "object"}
    assert "did you mean 'sign'?" in secureworker("schema", "payload", "sing", "--policy", path).output
    assert "there are sign" in secureworker("schema", "payload", "qqq", "--policy", path).output
    assert secureworker("schema", "payload", "sign", "--policy", write(tmp_path, "x: 1")).exit_code == 1


CASES = """\
cases:
  - name: a release is signed
    task: {scopes: ["project:x:action:sign"]}
    admit: sign
    argv: [--fast]
  - name: an empty task is refused
    refuse: [scripts]
"""


def test_cases_of_a_policy_are_tried(tmp_path: Path) -> None:
    result = secureworker("policy", "test", write(tmp_path), put(tmp_path, "cases.yml", CASES))
    assert result.exit_code == 0
    assert result.output == (
        "ok     a release is signed\nok     an empty task is refused\n2 of 2 cases went as they should\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("admit: sign", "admit: push", 'found:  admitted as sign, with the arguments ["--fast"]'),
        ("[--fast]", "[--slow]", 'wanted: admitted as sign, with the arguments ["--slow"]'),
        ("refuse: [scripts]", "admit: sign", "found:  refused\n                 scripts: none of the task's scopes"),
        ("refuse: [scripts]", "refuse: [tasks.scheduler-ids]", "wanted: refused by tasks.scheduler-ids"),
        ("admit: sign\n    argv: [--fast]", "refuse: [scripts]", "wanted: refused by scripts"),
    ],
)
def test_a_case_that_goes_otherwise_is_shown(tmp_path: Path, old: str, new: str, found: str) -> None:
    cases = put(tmp_path, "cases.yml", CASES.replace(old, new))
    result = secureworker("policy", "test", write(tmp_path), cases)
    assert result.exit_code == 1
    assert found in result.output
    assert "1 of 2 cases went as they should" in result.output
    answer = json.loads(secureworker("policy", "test", "--json", write(tmp_path), cases).output)
    assert sorted(case["passed"] for case in answer) == [False, True]


@pytest.mark.parametrize("cases", ["", "cases: []", "cases: [{name: x}]", "cases: [{name: x, admit: a, refuse: [b]}]"])
def test_a_file_that_holds_no_cases_is_refused(tmp_path: Path, cases: str) -> None:
    assert secureworker("policy", "test", write(tmp_path), put(tmp_path, "c.yml", cases)).exit_code == 2


def test_the_same_policy_differs_in_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, everything())
    result = secureworker("policy", "diff", path, path)
    assert result.exit_code == 0
    assert result.output == "0 looser (+), 0 tighter (-), 0 different (~)\n"


@pytest.mark.parametrize(
    ("old", "new", "looser", "tighter"),
    [
        ("ids: [release]", "ids: [release, other]", "tasks.scheduler-ids: other was added", "other was removed"),
        ("ids: [x]", "ids: [x, y]", "tasks.project-ids: y was added", "y was removed"),
        ('["project:x:*"]', '["project:x:*", "a:b"]', "may now have scopes covered by a:b", "a:b are allowed any more"),
        ('"project:x:cert:nightly*"', "", "nightly* was removed", "nightly* was added"),
        ("time: 1h", "time: 2h", "tasks.max-run-time: was 1h, is 2h", "tasks.max-run-time: was 2h, is 1h"),
        (
            TASKS.splitlines()[0],
            "",
            "tasks may now come from anywhere",
            "tasks may now come only https://github.com/o/r",
        ),
        (
            "repository: r}",
            "repository: r}, {scheme: https, host: h, repository: r}",
            "https://h/r was added",
            "h/r was r",
        ),
        (", {$eval: payload.scopes}]", "]", "payload.scopes", "payload.scopes"),
        ("{key: ", '{two: "credential:b", key: ', "credential:b as two was added", "credential:b as two was removed"),
        ("mounts: [", "mounts: [{source: /usr/lib, target: /l}, ", "/usr/lib as /l was added", "/l was removed"),
        ('com:443"]', 'com:443", "b:1"]', "network: b:1 was added", "network: b:1 was removed"),
        ("routes: [", "routes: [GET /api/a/v1/b, ", "GET /api/a/v1/b was added", "GET /api/a/v1/b was removed"),
        ('scopes: ["project:x:y"]', 'scopes: ["project:x:y", "project:x:z"]', "x:z was added", "x:z was removed"),
        ("required: true", "required: false", "upstream.required: was True, is False", "was False, is True"),
        ("max-size: 1GiB", "max-size: 2GiB", "upstream.max-size: was 1GiB, is 2GiB", "was 2GiB, is 1GiB"),
        ("forbid-features: [interactive]", "forbid-features: []", "interactive was removed", "interactive was added"),
        (", forbid-features", f", trace: {TRACE}, forbid-features", "followed to the tree now", "to the tree no more"),
        ("    upstream", "    #", "may have no inputs any more", "may have inputs now"),
        ("limits: none", "limits: {memory: 1GiB}", "limits hold now", "nothing but the run time is limited any more"),
        ('"releng/x", ', "", "releng/x was removed", "releng/x was added"),
        ("artifacts: {", "artifacts: {max-count: 900, ", "max-count: was 500, is 900", "max-count: was 900, is 500"),
    ],
)
def test_a_change_is_looser_one_way_and_tighter_the_other(
    tmp_path: Path, old: str, new: str, looser: str, tighter: str
) -> None:
    assert old in everything()
    before = put(tmp_path, "before.yml", everything())
    after = put(tmp_path, "after.yml", everything().replace(old, new, 1))
    there, back = (
        secureworker("policy", "diff", *paths).output.splitlines() for paths in ((before, after), (after, before))
    )
    signs = {line[0] for line in there[:-1]}, {line[0] for line in back[:-1]}
    assert signs in [({"+"}, {"-"}), ({"-"}, {"+"})], (there, back)
    assert looser in "\n".join(there)
    assert tighter.removesuffix(" was r") in "\n".join(back)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("https://tc", "https://other", '~ root-url: was "https://tc.example.com", is "https://other.example.com"'),
        ("releng/signing", "releng/other", "~ worker-pool: was"),
        ("--fast", "--slow", "~ scripts.sign.command: was"),
        ("{type: object}", "{properties: {a: {}}}", "~ scripts.sign.payload: the schema of payloads changed: a is new"),
        ("definition: {required: [tags]}", "definition: {}", "~ tasks.definition: the schema of definitions changed"),
        ("state: revoked", "valid-until: 2030-01-01", "~ trust[SHA256:lbms"),
        (DIGEST, "0" * 64, "is another file now (sha256 0000"),
        ("expires: 1y", "expires: 2y", '~ scripts.sign.artifacts.expires: was "1y", is "2y"'),
    ],
)
def test_a_change_that_is_neither_is_different(tmp_path: Path, old: str, new: str, message: str) -> None:
    before = put(tmp_path, "before.yml", everything())
    after = put(tmp_path, "after.yml", everything().replace(old, new, 1))
    result = secureworker("policy", "diff", before, after)
    assert result.exit_code == 1
    assert message in result.output


def test_scripts_come_and_go(tmp_path: Path) -> None:
    second = TEXT[TEXT.index("  sign:") :].replace("sign:\n", "push:\n").replace("equals: sign", "equals: push")
    before, after = put(tmp_path, "before.yml", TEXT), put(tmp_path, "after.yml", TEXT + second)
    result = secureworker("policy", "diff", before, after)
    assert result.exit_code == 1
    assert "+ scripts.push: a new script may run: push: Signs." in result.output
    result = secureworker("policy", "diff", "--json", after, before)
    assert result.exit_code == 0
    assert json.loads(result.output) == [
        {"effect": "tighter", "key": "scripts.push", "message": "this script does not run any more"}
    ]


def test_a_policy_that_is_not_valid_cannot_be_compared(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert secureworker("policy", "diff", path, put(tmp_path, "bad.yml", "x: 1")).exit_code == 2


@pytest.fixture
def key(tmp_path: Path) -> str:
    secrets = tmp_path / "keys"
    secrets.mkdir(mode=0o700)
    assert secureworker("keys", "new", str(secrets / "reviewers")).exit_code == 0
    return str(secrets / "reviewers")


@pytest.fixture
def signed(tmp_path: Path, key: str) -> str:
    """Give a signed policy with a schema of its own."""
    put(tmp_path, "payload.json", '{"type": "object"}')
    path = write(tmp_path, TEXT.replace("{type: object}", "{$ref: payload.json}"))
    result = secureworker("policy", "sign", path, "--key", f"file:{key}")
    assert result.exit_code == 0
    assert result.output.splitlines()[2].endswith("  payload.json")
    return path


def test_a_signed_policy_is_verified(signed: str, key: str) -> None:
    result = secureworker("policy", "verify", signed, "--key", f"{key}.pub")
    assert result.exit_code == 0
    assert "signed by SHA256:" in result.output


@pytest.mark.parametrize("name", ["release.yml", "payload.json"])
def test_a_changed_policy_or_schema_is_refused(tmp_path: Path, signed: str, key: str, name: str) -> None:
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    result = secureworker("policy", "verify", signed, "--key", f"{key}.pub")
    assert result.exit_code == 2
    assert "is not what was signed" in result.output


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("secureworker policy", "another", "this is no policy signature"),
        ("key SHA256:", "key MD5:", "only its signature counts"),
        ("signature ", "signature !", "the signature is no base64"),
        ("\nkey", "\n\nkey", "this is no policy signature"),
        ("signature ", "x" * 5000, "it has 5"),
        ("signature ", "é", "a signature is required"),
    ],
)
def test_a_signature_that_is_none_is_refused(signed: str, key: str, old: str, new: str, problem: str) -> None:
    signature = Path(f"{signed}.sig")
    text = signature.read_text()
    # The first line begins with the same word as the last.
    head, tail = text.rsplit("\n", 2)[0], text.rsplit("\n", 2)[1]
    signature.write_text(f"{head}\n{tail.replace(old, new)}\n" if old == "signature " else text.replace(old, new, 1))
    result = secureworker("policy", "verify", signed, "--key", f"{key}.pub")
    assert result.exit_code == 2
    assert problem in result.output


def test_a_policy_without_a_signature_is_refused(signed: str, key: str) -> None:
    Path(f"{signed}.sig").unlink()
    result = secureworker("policy", "verify", signed, "--key", f"{key}.pub")
    assert result.exit_code == 2
    assert "a signature is required" in result.output


def test_what_cannot_be_signed_is_said(tmp_path: Path, key: str) -> None:
    assert secureworker("policy", "sign", write(tmp_path), "--key", "file:/nonexistent").exit_code == 2
    assert secureworker("policy", "sign", write(tmp_path, "x: 1"), "--key", f"file:{key}").exit_code == 2
