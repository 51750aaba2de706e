"""The rest of the policy language: each key read as it is meant, and refused where it means nothing good."""

import base64
from datetime import date, timedelta
from pathlib import Path

import pytest

from secureworker.core.doors import Destination
from secureworker.core.origin import TracedRepository, TraceRule
from secureworker.core.outcome import Resolution
from secureworker.core.paths import Route
from secureworker.core.policy import (
    PayloadEquals,
    SecretRule,
    Source,
    TaskclusterRule,
    UpstreamRule,
)
from secureworker.core.privileges import ExtraScope
from secureworker.core.templates import Template
from secureworker.core.trust import Implementation, KeyState, fingerprint
from secureworker.core.website import Question, Website
from secureworker.policyfile import unenforceable
from secureworker.policyfile.compare import compare
from secureworker.policyfile.summary import of_script
from secureworker.policyfile.words import describe
from tests.policyfile.policies import END, TASKS, TEXT, problems, read, with_rule, write

KEY = (
    '{id: "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg", public: "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="'
)
OTHER_RAW = bytes(32)
OTHER_KEY = f'{{id: "{fingerprint(OTHER_RAW)}", public: "{base64.b64encode(OTHER_RAW).decode()}"'
TRUST = f"""\
trust:
  worker-pools:
    release-3/b-linux:
      keys: [{KEY}, valid-until: 2027-06-01}}, {OTHER_KEY}, state: revoked}}]
      implementation: generic-worker
"""


def with_task(line: str) -> str:
    """Give the policy with a line more under `tasks` (line `TASKS + 1`)."""
    return TEXT.replace("tasks:\n", f"tasks:\n  {line}\n")


def test_what_tasks_must_be_is_read(tmp_path: Path) -> None:
    text = with_task(
        "sources: [{scheme: https, host: github.com, owner: o, repository: r}, "
        "{scheme: https, host: h:8443, repository: r}]"
    ).replace("  max-run", "  definition: {required: [tags]}\n  deny: [{reason: no, scopes: ['a:b']}]\n  max-run")
    tasks = read(tmp_path, text).tasks
    assert tasks.sources == (Source("https", "github.com", "o", "r"), Source("https", "h:8443", "", "r"))
    assert tasks.definition is not None
    assert tasks.definition.problems({})
    (rule,) = tasks.deny
    assert (rule.reason, rule.scopes, rule.definition) == ("no", ("a:b",), None)


WORKER_SCOPES = "worker-scopes: [{scope: 'queue:get-artifact:x/*', reason: Inputs are private.}]"


def test_scopes_of_the_worker_itself_are_read_with_their_reason(tmp_path: Path) -> None:
    assert read(tmp_path, f"{TEXT}{WORKER_SCOPES}\n").worker_scopes == (
        ExtraScope("queue:get-artifact:x/*", "Inputs are private."),
    )
    assert read(tmp_path).worker_scopes == ()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("worker-scopes: []", "worker-scopes: found []; expected a list with 1 or more items"),
        ("worker-scopes: ['a:b']", "worker-scopes[0]: found"),
        ("worker-scopes: [{scope: 'a:b'}]", "worker-scopes[0].reason: is missing"),
        ("worker-scopes: [{scope: 'a:b', reason: ''}]", "worker-scopes[0].reason: found"),
        ("worker-scopes: [{scope: '*', reason: x}]", "worker-scopes[0].scope: found '*', which covers a whole kind"),
        ("worker-scopes: [{scope: 'queue:*', reason: x}]", "worker-scopes[0].scope: found 'queue:*', which covers"),
        ("worker-scopes: [{scope: 'assume:repo:x', reason: x}]", "worker-scopes[0].scope: found 'assume:repo:x': what"),
        (
            "worker-scopes: [{scope: 'queue:claim-work:a/b', reason: x}]",
            "worker-scopes[0].scope: found 'queue:claim-work:a/b'; the worker claims from worker-pool as itself",
        ),
        (
            "worker-scopes: [{scope: 'a:b', reason: x}, {scope: 'a:b', reason: y}]",
            "worker-scopes[1].scope: 'a:b' is there twice",
        ),
    ],
)
def test_what_is_wrong_about_scopes_of_the_worker_is_said(tmp_path: Path, line: str, problem: str) -> None:
    assert any(found.partition(": ")[2].startswith(problem) for found in problems(tmp_path, f"{TEXT}{line}\n"))


def test_a_denial_by_definition_is_read(tmp_path: Path) -> None:
    text = with_task("deny: [{reason: r, definition: {required: [x]}, scheduler-ids: [a], project-ids: [b]}]")
    (rule,) = read(tmp_path, text).tasks.deny
    assert rule.definition is not None
    assert (rule.scheduler_ids, rule.project_ids) == (("a",), ("b",))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("sources: [{scheme: https, host: GitHub.com, owner: o, repository: r}]", "tasks.sources[0].host: found"),
        ("sources: [{scheme: https, host: h, owner: a/b, repository: r}]", "tasks.sources[0].owner: found"),
        ("sources: [{scheme: https, host: h, repository: ..}]", "tasks.sources[0].repository: found"),
        ("sources: [{scheme: ftp, host: h, repository: r}]", "tasks.sources[0].scheme: found"),
        ("sources: []", "tasks.sources: found []; expected a list with 1 or more items"),
        ("sources: [https://github.com/o/r]", "tasks.sources[0]: found"),
        ("definition: {type: x}", "tasks.definition.type: found"),
        ("definition: {$ref: ../x.json}", 'tasks.definition["$ref"]: found'),
        ("definition: {$ref: none.json}", "tasks.definition: DIR/none.json cannot be read"),
        ("deny: [{reason: x}]", "tasks.deny[0]: found"),
        ("deny: [{scopes: [a]}]", "tasks.deny[0].reason: is missing"),
        ("deny: [{reason: x, definition: {type: x}}]", "tasks.deny[0].definition.type: found"),
    ],
)
def test_what_is_wrong_about_tasks_is_said(tmp_path: Path, line: str, problem: str) -> None:
    found = problems(tmp_path, with_task(line))
    assert any(each.startswith(f"{TASKS + 1}: {problem}") for each in found), found


def test_a_script_may_be_chosen_by_the_payload(tmp_path: Path) -> None:
    text = TEXT.replace('{scope-prefix: "project:x:action:", equals: sign}', "{payload-field: action, equals: sign}")
    assert read(tmp_path, text).scripts[0].when == PayloadEquals("action", "sign")


def test_scripts_are_chosen_all_by_scopes_or_all_by_the_payload(tmp_path: Path) -> None:
    second = TEXT[TEXT.index("  sign:") :].replace("  sign:\n", "  push:\n")
    second = second.replace(
        '{scope-prefix: "project:x:action:", equals: sign}', "{payload-field: action, equals: sign}"
    )
    (problem,) = problems(tmp_path, TEXT + second)
    assert problem == (
        f"{END + 3}: scripts.push.when: other scripts are chosen by scopes; choose all by scopes, or all by the payload"
    )


@pytest.mark.parametrize("when", ["{equals: x}", "{scope-prefix: 'project:x:', payload-field: a, equals: x}"])
def test_a_when_says_exactly_one_thing(tmp_path: Path, when: str) -> None:
    text = TEXT.replace('{scope-prefix: "project:x:action:", equals: sign}', when)
    assert "expected equals with either scope-prefix or payload-field" in problems(tmp_path, text)[0]


def test_arguments_and_scopes_may_be_templates(tmp_path: Path) -> None:
    text = TEXT.replace("--fast", '"--${payload.f}", {$eval: "payload.l"}')
    (rule,) = read(tmp_path, text + "    requires-scopes: [{$eval: payload.s}, 'x:${payload.y}']\n").scripts
    assert rule.command[1:] == (Template("--${payload.f}"), Template({"$eval": "payload.l"}))
    assert rule.requires_scopes == (Template({"$eval": "payload.s"}), Template("x:${payload.y}"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("requires-scopes: [{$find: [1], 'each(x)': x}]", "scripts.sign.requires-scopes[0]: found $find; expected one"),
        ("config: {a: {b: '${now}'}}", 'scripts.sign.config.a.b: found "now"'),
        ("config: {work_dir: {$eval: payload.x}}", "scripts.sign.config.work_dir: the worker sets this key itself"),
        ("secrets: {../x: 'credential:a'}", 'scripts.sign.secrets["../x"]: found this key; expected letters'),
        ("secrets: {x: hunter2}", 'scripts.sign.secrets.x: found "hunter2"; expected credential:NAME'),
        ("secrets: {x: 'file:/a/../b'}", "scripts.sign.secrets.x: found 'file:/a/../b'; expected 'file:/b'"),
        ("network: {allow: [example.com]}", 'scripts.sign.network.allow[0]: found "example.com"; expected host:port'),
        ("network: {allow: ['example.com:99999']}", 'scripts.sign.network.allow[0]: found "example.com:99999"'),
        ("network: {allow: ['a:1', {destination: 'a:1'}]}", "scripts.sign.network.allow[1]: a:1 is allowed twice"),
        ("network: {allow: ['*:443']}", 'scripts.sign.network.allow[0]: found "*:443"'),
        ("network: {}", "scripts.sign.network.allow: is missing"),
        ("taskcluster: {routes: ['GET /x']}", 'scripts.sign.taskcluster.routes[0]: found "GET /x"; expected a method'),
        ("taskcluster: {routes: ['GET /api/a/v1/b/../c']}", "scripts.sign.taskcluster.routes[0]: found"),
        ("taskcluster: {routes: ['GET /api/a/v1/b//c']}", "scripts.sign.taskcluster.routes[0]: found"),
        ("taskcluster: {routes: ['GET /api/a/v1/%2e']}", "scripts.sign.taskcluster.routes[0]: found"),
        ("taskcluster: {routes: [GET /api/a/v1/b], scopes: ['queue:*']}", "scripts.sign.taskcluster.scopes[0]: found"),
        (
            "taskcluster: {routes: [GET /api/a/v1/b], scopes: ['s:x']}",
            "scripts.sign.taskcluster.scopes[0]: no task can",
        ),
        ("upstream: {worker-pools: [release-3/*]}", "scripts.sign.upstream.worker-pools[0]: trust.worker-pools has no"),
        ("upstream: {}", "scripts.sign.upstream.worker-pools: is missing"),
        ("limits: unlimited", 'scripts.sign.limits: found "unlimited"; expected limits, or none'),
    ],
)
def test_what_is_wrong_about_a_rule_is_said(tmp_path: Path, line: str, problem: str) -> None:
    found = problems(tmp_path, with_rule(line))
    assert any(each.startswith(f"{END + 1}: {problem}") for each in found), found


def test_the_config_may_name_the_workers_places_itself(tmp_path: Path) -> None:
    line = "config: {work_dir: {$eval: sandbox.work}, artifact_dir: {$eval: sandbox.artifacts}}"
    assert read(tmp_path, with_rule(line)).scripts[0].config is not None


def test_secrets_network_and_taskcluster_are_read_and_secrets_not_enforced_yet(tmp_path: Path) -> None:
    text = with_rule("secrets: {b: 'file:/etc/key', a: 'credential:autograph'}") + (
        "    network: {allow: ['a.example.com:443', 'http://b:80', {destination: '[::1]:8443', internal: true}]}\n"
        "    taskcluster: {routes: [GET /api/secrets/v1/secret/x%2Fy*], scopes: ['project:x:y']}\n"
    )
    policy = read(tmp_path, text)
    (rule,) = policy.scripts
    assert rule.secrets == (SecretRule("a", "credential:autograph"), SecretRule("b", "file:/etc/key"))
    assert rule.network == (
        Destination("a.example.com", 443),
        Destination("b", 80, plain=True),
        Destination("::1", 8443, internal=True),
    )
    assert [str(each) for each in rule.network] == ["a.example.com:443", "http://b:80", "[::1]:8443 (internal)"]
    assert str(rule.taskcluster.routes[0]) == "GET /api/secrets/v1/secret/x/y*"
    assert rule.taskcluster == TaskclusterRule((Route("GET", "/api/secrets/v1/secret/x/y*"),), ("project:x:y",))
    assert unenforceable(policy) == ()


def test_inputs_and_trust_are_read(tmp_path: Path) -> None:
    line = "upstream: {required: true, worker-pools: [release-3/*], max-size: 1GiB, forbid-features: [interactive]}"
    policy = read(tmp_path, with_rule(line) + TRUST)
    assert policy.scripts[0].upstream == UpstreamRule(
        required=True, worker_pools=("release-3/*",), max_size=2**30, forbid_features=("interactive",)
    )
    (pool,) = policy.trust
    assert str(pool.worker_pool) == "release-3/b-linux"
    assert pool.implementation is Implementation.GENERIC_WORKER
    assert [key.fingerprint in TRUST for key in pool.keys] == [True, True]
    assert [(key.state, key.valid_from, key.valid_until) for key in pool.keys] == [
        (KeyState.ACTIVE, None, date(2027, 6, 1)),
        (KeyState.REVOKED, None, None),
    ]
    assert policy.trust_file is None
    assert unenforceable(policy) == ()


TRACE = (
    "upstream: {worker-pools: [release-3/*], trace: {decision-pools: [release-3/b-linux], max-depth: 3, repositories: "
    "[{scheme: https, host: github.com, owner: o, repository: r, mirror: /m.git, branches: [main, rel/*], "
    "environment-prefix: APP}]}}"
)


ANOTHER = "{scheme: https, host: github.com, owner: o, repository: r, mirror: /n, branches: [x], environment-prefix: X}"


def test_how_inputs_are_followed_to_the_tree_is_read_and_said(tmp_path: Path) -> None:
    mirror = tmp_path / "m.git"
    mirror.mkdir()
    (mirror / "HEAD").touch()
    policy = read(tmp_path, with_rule(TRACE.replace("/m.git", str(mirror))) + TRUST)
    (rule,) = policy.scripts
    assert rule.upstream is not None
    where = TracedRepository("https", "github.com", "o", "r", str(mirror), ("main", "rel/*"), "APP")
    assert rule.upstream.trace == TraceRule(("release-3/b-linux",), (where,), 3)
    said = "\n".join(describe(policy))
    assert "only inputs that come, over at most 3 steps, from decision tasks" in said
    assert f"https://github.com/o/r, on one of main, rel/* as {mirror} has it" in said
    assert unenforceable(policy) == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("decision-pools: [release-3/b-linux], ", "", "trace.decision-pools: is missing"),
        ("[release-3/b-linux], m", "[release-4/x], m", "trace.decision-pools[0]: trust.worker-pools has no pool"),
        ("/m.git", "m.git", "trace.repositories[0].mirror: found"),
        ("/m.git", "/a/../m.git", "trace.repositories[0].mirror: found '/a/../m.git'; expected '/m.git'"),
        ("[main, rel/*]", "[]", "trace.repositories[0].branches: found"),
        ("[main, rel/*]", "['*']", "trace.repositories[0].branches[0]: found"),
        ("APP", "app", "trace.repositories[0].environment-prefix: found"),
        ("max-depth: 3", "max-depth: 0", "trace.max-depth: found"),
        (", repositories: [", ", https: x, repositories: [", "trace.https: is not a known key"),
        ("[{scheme", f"[{ANOTHER}, {{scheme", "trace.repositories[1]: https://github.com/o/r is there twice"),
        ("/m.git", "/m", "trace.repositories[0].mirror: /m is no bare git repository; make it"),
    ],
)
def test_what_is_wrong_about_following_inputs_is_said(tmp_path: Path, old: str, new: str, problem: str) -> None:
    found = problems(tmp_path, with_rule(TRACE.replace(old, new, 1)) + TRUST)
    assert any(problem in each for each in found), found


API = "https://api.example.com/o/r"
HTTPS = (
    'https: {file: "https://raw.example.com:8443/o/r/{revision}/.taskcluster.yml", '
    f'branch: {{url: "{API}/compare/{{branch}}...{{revision}}?per_page=1", key: status, values: [identical, behind]}}, '
    f'tag: {{url: "{API}/commits/refs%2Ftags%2F{{tag}}", key: commit.sha, values: ["{{revision}}"]}}}}'
)
BY_HTTPS = TRACE.replace("mirror: /m.git", HTTPS)


def test_where_a_repository_is_read_over_https_is_read_and_said(tmp_path: Path) -> None:
    policy = read(tmp_path, with_rule(BY_HTTPS) + TRUST)
    (rule,) = policy.scripts
    assert rule.upstream is not None
    assert rule.upstream.trace is not None
    (repository,) = rule.upstream.trace.repositories
    assert repository.mirror == ""
    assert repository.website == Website(
        "https://raw.example.com:8443/o/r/{revision}/.taskcluster.yml",
        Question(
            "https://api.example.com/o/r/compare/{branch}...{revision}?per_page=1", "status", ("identical", "behind")
        ),
        Question("https://api.example.com/o/r/commits/refs%2Ftags%2F{tag}", "commit.sha", ("{revision}",)),
    )
    said = "\n".join(describe(policy))
    assert "https://github.com/o/r, on one of main, rel/* as this host says: https://raw.example.com:8443/o/r/" in said
    trace = of_script(rule)["upstream"]
    assert "per_page=1', 'key': 'status', 'values': ['identical', 'behind']}" in str(trace)
    assert compare(policy, policy) == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (HTTPS, f"mirror: /m.git, {HTTPS}", "is read from a mirror or by https; give one of them"),
        (f"{HTTPS}, ", "", "is read from a mirror or by https; give one of them"),
        ("https://raw", "http://raw", "https.file: found"),
        ("raw.example.com:8443", "{revision}", "https.file: found"),
        ("raw.example.com:8443", "user@raw.example.com", "https.file: found"),
        ("raw.example.com:8443", "raw.example.com:8443#", "https.file: found"),
        ("/{revision}/.task", "/main/.task", "https.file: found none in it; expected {revision}"),
        ("/{revision}/.task", "/{revision}/{branch}/.task", "https.file: found {branch}, {revision} in it; expected"),
        ("{branch}...", "...", "https.branch: found {revision} in it; expected {branch} and {revision}"),
        ("{revision}?", "{revision", "https.branch: found {branch}, {revision"),
        ("F{tag}", "Fv1", "https.tag: found {revision} in it; expected {revision} and {tag}"),
        ('values: ["{revision}"]', "values: [yes]", "https.tag"),
        ("key: status", "key: 'status..x'", "https.branch.key: found"),
        ("[identical, behind]", "[]", "https.branch.values: found"),
        (", key: status", "", "https.branch.key: is missing"),
    ],
)
def test_what_is_wrong_about_reading_over_https_is_said(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in BY_HTTPS
    found = problems(tmp_path, with_rule(BY_HTTPS.replace(old, new, 1)) + TRUST)
    assert any(problem in each for each in found), found


def test_a_mirror_that_anybody_could_change_or_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    mirror = tmp_path / "place" / "m.git"
    mirror.mkdir(parents=True)
    (mirror / "HEAD").touch()
    (tmp_path / "link.git").symlink_to(mirror)

    def found(path: Path) -> str:
        return "\n".join(problems(tmp_path, with_rule(TRACE.replace("/m.git", str(path))) + TRUST))

    assert "DIR/link.git is a link, or may be written by everybody" in found(tmp_path / "link.git")
    mirror.chmod(0o777)
    assert "m.git is a link, or may be written by everybody" in found(mirror)
    mirror.chmod(0o755)
    mirror.parent.chmod(0o777)
    assert "DIR/place may be written by everybody" in found(mirror)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("SHA256:l", "SHA256:m", "the key's fingerprint is SHA256:lbms"),
        ("2027-06-01", "2027-06-31", "day is out of range"),
        ("2027-06-01", "soon", "expected a day like 2027-06-01"),
        ("A6EH", "A6E", "expected base64 of 32 bytes"),
        ("release-3/b-linux", "release-3", "expected <provisionerId>/<workerType>"),
        ("generic-worker", "my-worker", "expected one of"),
        (
            f"{OTHER_KEY}, state: revoked",
            f"{KEY}, state: revoked",
            "found 'active', but for release-3/b-linux this key is revoked",
        ),
        ("state: revoked", "state: retired", "found 'retired' without valid-until; add the day"),
        ("state: revoked", "state: next", "found 'next' without valid-from; add the day"),
        ("state: revoked", "state: lost", "expected one of"),
    ],
)
def test_what_is_wrong_about_trust_is_said(tmp_path: Path, old: str, new: str, problem: str) -> None:
    found = problems(tmp_path, TEXT + TRUST.replace(old, new, 1))
    assert problem in found[0]


def test_a_policy_that_is_enforced_in_full_has_nothing_to_name(tmp_path: Path) -> None:
    assert unenforceable(read(tmp_path)) == ()


def test_limits_none_leaves_the_run_time_only(tmp_path: Path) -> None:
    policy = read(tmp_path, with_rule("limits: none") + "defaults: {limits: {run-time: 5m}}\n")
    assert policy.scripts[0].unlimited
    assert policy.scripts[0].limits.run_time == timedelta(minutes=5)
    assert unenforceable(policy) == ()


DEFAULTS = """\
defaults:
  limits: {run-time: 10m, memory: 1GiB, processes: 7}
  environment: {LANG: C, TZ: UTC}
  artifacts: {max-size: 1MiB, on-failure: discard}
  exit-codes: {2: intermittent-task, 9: failed}
  on-shutdown: {grace: 1m}
"""


def test_defaults_hold_where_a_script_does_not_say_otherwise(tmp_path: Path) -> None:
    own = (
        "limits: {memory: 2GiB}\n    environment: {LANG: de_DE.UTF-8}\n    exit-codes: {9: internal-error}\n"
        "    artifacts: {allow: [a], max-size: 2MiB}\n    on-shutdown: {grace: 2m}"
    )
    (rule,) = read(tmp_path, with_rule(own) + DEFAULTS).scripts
    assert (rule.limits.memory_bytes, rule.limits.processes) == (2 * 2**30, 7)
    assert rule.limits.run_time == timedelta(minutes=10)
    assert rule.environment == (("LANG", "de_DE.UTF-8"), ("TZ", "UTC"))
    assert rule.exit_codes.resolution(2) is Resolution.INTERMITTENT_TASK
    assert rule.exit_codes.resolution(9) is Resolution.INTERNAL_ERROR
    assert (rule.outputs.max_size, rule.outputs.on_failure) == (2 * 2**20, False)
    assert rule.grace == timedelta(minutes=2)


def test_defaults_alone_hold(tmp_path: Path) -> None:
    (rule,) = read(tmp_path, TEXT + DEFAULTS).scripts
    assert rule.limits.memory_bytes == 2**30
    assert rule.outputs.max_size == 2**20
    assert rule.outputs.allow == ()
    assert rule.grace == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("limits: {run-time: 2h}", "defaults.limits.run-time: found 2h; expected at most tasks.max-run-time, 1h"),
        ("limits: none", 'defaults.limits: found "none"; expected an object'),
        ("environment: {LD_PRELOAD: x}", "defaults.environment.LD_PRELOAD: this variable makes programs load"),
        ("artifacts: {allow: [x]}", "defaults.artifacts.allow: is not a known key"),
        ("scopes: []", "defaults.scopes: is not a known key"),
    ],
)
def test_what_is_wrong_about_defaults_is_said(tmp_path: Path, line: str, problem: str) -> None:
    found = problems(tmp_path, f"{TEXT}defaults:\n  {line}\n")
    assert any(each.startswith(f"{END + 2}: {problem}") for each in found), found


def test_the_schemas_that_were_read_are_named_with_their_digests(tmp_path: Path) -> None:
    path = Path(write(tmp_path))
    (path.parent / "s.json").write_text("{}")
    (path.parent / "s.json").chmod(0o644)
    (file,) = read(tmp_path, TEXT.replace("{type: object}", "{$ref: s.json}")).files
    assert file.path == str(tmp_path / "s.json")
    assert file.sha256 == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
