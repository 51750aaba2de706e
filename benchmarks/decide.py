"""How long a decision takes, and a check: a policy with 50 scripts, a task with 200 scopes.

`python benchmarks/decide.py [--scripts N] [--scopes N]`. Prints medians; asserts nothing.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from secureworker.core.claim import Claim, Credentials, Json, Secret, parse_definition
from secureworker.core.decide import decide
from secureworker.core.ids import RunId, TaskId, WorkerIdentity
from secureworker.policyfile import load
from secureworker.policyfile.trial import NOW, complete

HEAD = """\
version: 1
root-url: https://tc.example.com
worker-pool: benchmark/decide
tasks:
  scheduler-ids: [release]
  project-ids: [example]
  scopes: {allow: ["project:example:*"], forbid: ["project:example:nightly*"]}
  max-run-time: 2h
scripts:
"""
RULE = """\
  action-{number}:
    description: One of many scripts.
    when: {{scope-prefix: "project:example:action:", equals: action-{number}}}
    command: [script, --format, "${{payload.format}}", {{$map: {{$eval: payload.files}}, "each(f)": "--file=${{f}}"}}]
    pinned: {{script: {digest}}}
    payload:
      type: object
      properties:
        format: {{enum: [gpg, mar]}}
        files: {{type: array, maxItems: 100, items: {{type: string, pattern: "^[a-z0-9./-]+$"}}}}
      required: [format, files]
      additionalProperties: false
    requires-scopes: ["project:example:format:${{payload.format}}"]
    config: {{work_dir: {{$eval: sandbox.work}}, format: "${{payload.format}}"}}
    environment: {{LANG: C.UTF-8}}
    limits: {{run-time: 30m, memory: 2GiB, processes: 256, disk: 10GiB}}
    artifacts: {{allow: ["public/build/**"], max-size: 4GiB, max-total: 16GiB}}
    exit-codes: {{17: intermittent-task}}
"""


def median_of(times: int, function: Callable[[], object]) -> float:
    """Give the median seconds of calls."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripts", type=int, default=50)
    parser.add_argument("--scopes", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "script"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        digest = hashlib.sha256(script.read_bytes()).hexdigest()
        path = Path(directory) / "policy.yml"
        path.write_text(HEAD + "".join(RULE.format(number=each, digest=digest) for each in range(options.scripts)))
        policy = load(str(path))
        files: Json = [f"public/build/target-{each}.zip" for each in range(5)]
        scopes: Json = [f"project:example:other:{each}" for each in range(options.scopes - 2)]
        assert isinstance(scopes, list)
        scopes += [f"project:example:action:action-{options.scripts - 1}", "project:example:format:gpg"]
        body: dict[str, Json] = {"scopes": scopes, "payload": {"format": "gpg", "files": files}}
        task = parse_definition(complete(body, policy))
        me = WorkerIdentity(policy.worker_pool, "benchmark", "benchmark")
        nobody = Credentials("benchmark", Secret(""))
        claim = Claim(TaskId("AAAAAAAAQACAAAAAAAAAAA"), RunId(0), me, NOW.replace(year=2100), nobody, task)
        print(f"{options.scripts} scripts, {options.scopes} scopes, a policy of {path.stat().st_size} bytes")
        print(f"decide  {median_of(1000, lambda: decide(claim, policy, me, NOW)) * 1000:8.3f} ms")
        print(f"load    {median_of(10, lambda: load(str(path))) * 1000:8.1f} ms")
        check = [sys.executable, "-m", "secureworker", "check", "--json", "--policy", str(path)]
        print(f"check   {median_of(5, lambda: subprocess.run(check, check=True, capture_output=True)) * 1000:8.1f} ms")
        explained = decide(claim, policy, me, NOW)
        print(json.dumps(type(explained).__name__))


if __name__ == "__main__":
    main()
