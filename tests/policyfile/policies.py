"""A policy of a few lines, with its script, to be spoiled one thing at a time."""

import hashlib
from pathlib import Path

import pytest

from secureworker.core.errors import PolicyError
from secureworker.core.policy import Policy
from secureworker.policyfile import load

SCRIPT = b"#!/bin/sh\nexit 0\n"
DIGEST = hashlib.sha256(SCRIPT).hexdigest()
TEXT = f"""\
version: 1
root-url: https://tc.example.com
worker-pool: releng/signing
tasks:
  scheduler-ids: [release]
  project-ids: [x]
  scopes:
    allow: ["project:x:*"]
    forbid: ["project:x:cert:nightly*"]
  max-run-time: 1h
scripts:
  sign:
    description: Signs.
    when: {{scope-prefix: "project:x:action:", equals: sign}}
    command: [bin/sign, --fast]
    pinned: {{bin/sign: {DIGEST}}}
    payload: {{type: object}}
"""
TASKS, SCRIPTS, SIGN = 4, 11, 12
"""Lines of the keys `tasks`, `scripts` and `sign`."""
END = TEXT.count("\n")


def write(directory: Path, text: str = TEXT) -> str:
    """Put a policy and its script into a directory that only this user may write to."""
    directory.chmod(0o755)
    script = directory / "bin" / "sign"
    script.parent.mkdir(mode=0o755, exist_ok=True)
    script.write_bytes(SCRIPT)
    script.chmod(0o755)
    policy = directory / "release.yml"
    policy.write_text(text)
    policy.chmod(0o644)
    return str(policy)


def read(directory: Path, text: str = TEXT) -> Policy:
    """Load a policy of this text."""
    return load(write(directory, text))


def problems(directory: Path, text: str) -> list[str]:
    """Load a policy that must not load; give its problems without the directory."""
    path = write(directory, text)
    with pytest.raises(PolicyError) as caught:
        load(path)
    return [problem.replace(f"{path}:", "").replace(str(directory), "DIR") for problem in caught.value.problems]


def with_rule(line: str) -> str:
    """Give the policy with a line more in its script's rule (line `END + 1`)."""
    return f"{TEXT}    {line}\n"
