"""What a policy says of a script's doors: read in one spelling, refused in others, and shown by `explain`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from secureworker.cli.main import cli
from secureworker.core.doors import Destination
from secureworker.core.paths import Route
from tests.policyfile.policies import END, problems, read, with_rule, write

DOORS = """\
network: {allow: ["a.example.com:443", {destination: "http://b.internal:80", internal: true}, "[2001:db8::1]:443"]}
    taskcluster:
      routes: ["GET /api/secrets/v1/secret/project/x/*", "GET /api/secrets/v1/secret/project%2Fx%2Fy"]
      scopes: ["project:x:secret:*"]
"""


def test_hosts_and_routes_are_read_in_the_form_they_are_compared_in(tmp_path: Path) -> None:
    (rule,) = read(tmp_path, with_rule(DOORS)).scripts
    assert rule.network == (
        Destination("a.example.com", 443),
        Destination("b.internal", 80, plain=True, internal=True),
        Destination("2001:db8::1", 443),
    )
    assert rule.taskcluster.routes == (
        Route("GET", "/api/secrets/v1/secret/project/x/*"),
        Route("GET", "/api/secrets/v1/secret/project/x/y"),
    )


@pytest.mark.parametrize(
    "host",
    [
        "127.1:443",
        "2130706433:443",
        "0x7f.1:443",
        "a.example.com.:443",
        "*.example.com:443",
        "user@a.example.com:443",
        "a..example.com:443",
        "[::ffff:10.0.0.1]:443",
        "[0::1]:443",
        "A.example.com:443",
        "a.example.com",
        "a.example.com:0",
        "https://a.example.com:443",
    ],
)
def test_another_spelling_of_a_host_is_refused(tmp_path: Path, host: str) -> None:
    (problem,) = problems(tmp_path, with_rule(f"network: {{allow: ['{host}']}}"))
    assert problem.startswith(f'{END + 1}: scripts.sign.network.allow[0]: found "{host}"')


@pytest.mark.parametrize(
    ("route", "why"),
    [
        ("GET /api/queue/v1/task/../x", "'.' or '..'"),
        ("GET /api/queue/v1//task", ""),
        ("GET /api/queue/v1/task/%2E%2E", ""),
        ("GET /api/queue/v1/task/a%2fb", ""),
        ("POST /api/queue/v1/claim-work/*", "the worker's own"),
        ("POST /api/queue/v1/task/x/runs/0/completed", "the worker's own"),
        ("PUT /api/queue/v1/task/x/runs/0/artifacts/*", "the worker's own"),
    ],
)
def test_a_route_that_no_request_may_have_is_refused(tmp_path: Path, route: str, why: str) -> None:
    found = problems(tmp_path, with_rule(f"taskcluster: {{routes: ['{route}'], scopes: []}}"))
    assert any(
        each.startswith(f'{END + 1}: scripts.sign.taskcluster.routes[0]: found "{route}"') and why in each
        for each in found
    ), found


@pytest.mark.parametrize("scope", ["queue:reclaim-task:*", "queue:resolve-task:x/0", "queue:*", "assume:x"])
def test_scopes_of_the_workers_own_business_cannot_be_granted(tmp_path: Path, scope: str) -> None:
    line = f"taskcluster: {{routes: ['GET /api/queue/v1/ping'], scopes: ['{scope}']}}"
    assert any("belongs to the worker" in each for each in problems(tmp_path, with_rule(line)))


def test_explain_shows_the_doors_with_the_scopes_that_this_very_task_gets(tmp_path: Path) -> None:
    task = {"scopes": ["project:x:action:sign", "project:x:secret:one"], "payload": {}}
    arguments = ["explain", "--json", "--policy", write(tmp_path, with_rule(DOORS)), "-"]
    plan = json.loads(CliRunner().invoke(cli, arguments, input=json.dumps(task)).output)["plan"]
    assert plan["network"] == ["a.example.com:443", "http://b.internal:80 (internal)", "[2001:db8::1]:443"]
    assert plan["taskcluster"]["scopes"] == ["project:x:secret:one"]
    assert plan["taskcluster"]["routes"][0] == "GET /api/secrets/v1/secret/project/x/*"
