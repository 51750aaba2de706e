"""A first draft of a policy from a `scriptworker.yaml`: what it says is carried over, what it does not is asked for."""

import json
import shlex
from collections.abc import Mapping
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.errors import PolicyError
from secureworker.host.documents import BadDocument, parse

_TODO: Final = "<TODO>"
"""No name, path or digest is spelled like this: `check` complains about every one that is left."""
_DRAFT: Final = """\
# A draft, made from {name} by `secureworker policy from-scriptworker`.
# Every <TODO> is a decision that only you can take; `secureworker check --policy FILE` names those that are left.

version: 1
root-url: {root_url}
worker-pool: {pool}  # provisioner_id / worker_type

tasks:
  # scriptworker asked its chain of trust where a task comes from. Here, its names say so: only who has the scopes
  # queue:scheduler-id:... and queue:create-task:project:... can create tasks with them.
  scheduler-ids: ["<TODO>"]
  project-ids: ["<TODO>"]
  scopes:
    # taskcluster_scope_prefixes: everything below belongs to the script.
    allow: {scopes}
  max-run-time: {run_time}  # task_max_timeout

scripts:
  # One script, which reads its action from the task's scopes itself, as it did under scriptworker.
  # Tighter: a rule for each action, with `when: {{scope-prefix: ..., equals: ...}}`, and only what that one needs.
  main:
    description: "<TODO>: what does it do?"
    # task_script, without the config file: this worker writes that, and gives it as the last argument.
    command: {command}
    # sha256sum {shell_script}
    pinned: {{{script}: "<TODO>"}}
    # The schema that the script checks its tasks with, copied to a file beside this one.
    payload: {{$ref: "<TODO>"}}
    # What the script's config file held; work_dir and artifact_dir are the worker's. Secrets do not belong here, but
    # under `secrets`: {{file.json: "credential:NAME"}}
    config: {config}
    # network: {{allow: ["host.example.com:443"]}}
    # What the script is installed in, like /opt/signingscript.
    mounts: [{{source: "../<TODO>"}}]
    limits: {{run-time: {run_time}, memory: 2GiB, disk: 10GiB}}
    artifacts:
      allow: []  # <TODO>: like ["public/build/**"]; nothing is published without
      expires: {expires}  # artifact_expiration_hours
    # scriptworker's exit codes are known here, but 2: it meant worker-shutdown there, and means failed here.
    # true, if starting it again after an interruption does no harm:
    repeatable: "<TODO>"
"""


def draft_from_scriptworker(content: bytes, name: str) -> str:
    """Write a commented policy.

    It is not valid as it stands: every `<TODO>` in it is a decision that a scriptworker's configuration does not hold.

    Raises:
        PolicyError: the file is no mapping in YAML or JSON.
    """
    try:
        value = parse(content, name).value
    except BadDocument as error:
        raise PolicyError(error.problems) from error
    if not isinstance(value, dict):
        raise PolicyError((f"{name}: expected the keys of a scriptworker.yaml",))
    prefixes, command = _prefixes(value), _command(value)
    return _DRAFT.format(
        name=name,
        root_url=_flow(_text(value, "taskcluster_root_url").rstrip("/")),
        pool=_flow(f"{_text(value, 'provisioner_id')}/{_text(value, 'worker_type')}"),
        scopes=_flow([f"{prefix}*" for prefix in prefixes] or [_TODO]),
        run_time=f"{_number(value, 'task_max_timeout', 1200)}s",
        command=_flow([*command]),
        script=_flow(command[0]),
        shell_script=shlex.quote(command[0]),
        config=_flow({"taskcluster_scope_prefixes": [*prefixes]}) if prefixes else "{}",
        expires=f"{_number(value, 'artifact_expiration_hours', 24)}h",
    )


def _text(config: Mapping[str, Json], key: str, default: str = _TODO) -> str:
    """Give a key's text; `default` where it is missing, or filled in by a template when scriptworker is installed."""
    value = config.get(key, default)
    usable = (
        isinstance(value, str | int) and not isinstance(value, bool) and "{" not in str(value) and "$" not in str(value)
    )
    return str(value) if usable else default


def _prefixes(config: Mapping[str, Json]) -> list[str]:
    found = config.get("taskcluster_scope_prefixes", config.get("taskcluster_scope_prefix", []))
    listed = found if isinstance(found, list) else [found]
    return [prefix if prefix.endswith(":") else f"{prefix}:" for prefix in listed if isinstance(prefix, str) and prefix]


def _command(config: Mapping[str, Json]) -> list[str]:
    """Give the words of `task_script` without the config file, which this worker writes itself."""
    written = config.get("task_script", [])
    try:
        words = shlex.split(written) if isinstance(written, str) else written
    except ValueError:
        # A quote that nobody closes.
        words = []
    command = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
    if len(command) > 1 and command[-1].endswith((".json", ".yaml", ".yml")):
        command.pop()
    return command or [_TODO]


def _number(config: Mapping[str, Json], key: str, default: int) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def _flow(value: Json) -> str:
    """Write a value in YAML's flow style: JSON is that."""
    return json.dumps(value, ensure_ascii=False)
