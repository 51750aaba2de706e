"""The files that a host begins with, as text. Pure: from what is known to what is written."""

import json
import shlex
from dataclasses import dataclass
from typing import Final

from secureworker.core.ids import ScriptName, Sha256, WorkerIdentity

DRAIN_SECONDS: Final = 600
"""Less than the unit's TimeoutStopSec, by the longest grace and an upload."""
SOCKET: Final = "/run/secureworker-signer/socket"
"""Where the signer's unit listens."""
SIGNER_LOG: Final = "/var/lib/secureworker-signer/audit"
SIGNER_CREDENTIAL: Final = "signing"
"""The key's name in the signer's unit (LoadCredential=)."""

_POLICY: Final = """\
# What this worker may do. What is not allowed here is refused.
#
# Written by `secureworker init` as a beginning: {which}
# Every line below is a decision; read docs/policies.md, change what is yours, have it reviewed, and ask
#
#   secureworker check --strict --policy {path}

version: 1

# The only deployment this worker talks to, and the only pool that it claims tasks from.
root-url: {root_url}
worker-pool: {pool}

# What every task must satisfy.
tasks:
  # Only who has the scope queue:scheduler-id:<this> can create such tasks{schedulers_note}.
  scheduler-ids: {schedulers}
  # Only who has the scope queue:create-task:project:<this> can create such tasks{projects_note}.
  project-ids: {projects}
  # A task with any other scope was meant for somebody else, and is refused.
  scopes:
    allow: {scopes}
  max-run-time: 30m

scripts:
{scripts}"""
_SCRIPT: Final = """\
  {name}:
    description: {description}
{when}    command: [{path}]
    # What sha256sum prints. A private copy with exactly this content is what runs: a new version is a new review.
    pinned:
      {path}: {sha256}
    # What a task may ask for: a JSON schema. This one takes {takes}.
    payload:
      type: object
{properties}      additionalProperties: false
    limits:
      run-time: 10m
      memory: 1GiB
      processes: 64
      disk: 1GiB
    artifacts:
      allow: ["public/**"]
"""
_WHEN: Final = "    when: {{payload-field: script, equals: {name}}}\n"
_PROPERTIES: Final = "      properties: {{script: {{const: {name}}}}}\n      required: [script]\n"
_WORKER: Final = """\
# Settings of `secureworker run`, one variable for each of its options: `secureworker run --help`.
# No secret belongs here: everybody on this host can read it.
SECUREWORKER_POLICY={policy}
SECUREWORKER_ROOT_URL={root_url}
SECUREWORKER_WORKER_GROUP={group}
SECUREWORKER_WORKER_ID={worker}
SECUREWORKER_STATE_DIR={state}
{signing}
{credentials}
# After SIGTERM a task may go on for so long. The unit's TimeoutStopSec must be longer.
SECUREWORKER_DRAIN_SECONDS={drain}
SECUREWORKER_LOG_FORMAT={log_format}
"""
_SIGNER: Final = """\
# Settings of the signer, checked against schemas/signer.schema.json; docs/audit-log.md explains them.
version: 1
# The one worker that it signs for.
worker-pool: {pool}
worker-group: {group}
worker-id: {worker}
root-url: {root_url}
# What the unit loads as this credential.
key: credential:{credential}
audit-log: {log}
socket: {socket}
# Who may ask it; the kernel says who asks.
clients: [root]
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script that the first policy allows."""

    name: ScriptName
    path: str
    """As the policy names it: absolute, or from its directory."""
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Admits:
    """Which tasks the first policy admits."""

    scheduler_ids: tuple[str, ...]
    project_ids: tuple[str, ...]
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Worker:
    """What is known of the worker."""

    identity: WorkerIdentity
    root_url: str
    directory: str
    state_dir: str
    units: bool
    """Whether systemd starts it, and its signer; else it starts a signer of its own."""

    def path(self, name: str) -> str:
        """Give the path of a file of settings."""
        return f"{self.directory}/{name}"


def policy(worker: Worker, admits: Admits, scripts: tuple[Script, ...]) -> str:
    """Write the policy."""
    names = ", ".join(str(script.name) for script in scripts)
    return _POLICY.format(
        which=f"the scripts {names}." if len(scripts) > 1 else f"the script {names}, for every task.",
        path=worker.path("policy.yml"),
        root_url=worker.root_url,
        pool=worker.identity.pool,
        schedulers=_list(admits.scheduler_ids),
        schedulers_note="; - is for those that name none" if "-" in admits.scheduler_ids else "",
        projects=_list(admits.project_ids),
        projects_note="; none is for those without a project" if "none" in admits.project_ids else "",
        scopes=_list(admits.scopes),
        scripts="\n".join(_script(script, alone=len(scripts) == 1) for script in scripts),
    )


def _script(script: Script, *, alone: bool) -> str:
    return _SCRIPT.format(
        name=script.name,
        description=_quoted(f"Runs {script.path}. Say here what that does."),
        when="" if alone else _WHEN.format(name=script.name),
        path=_quoted(script.path),
        sha256=script.sha256,
        takes="nothing but maxRunTime" if alone else "the script's name, and maxRunTime",
        properties="" if alone else _PROPERTIES.format(name=script.name),
    )


def worker_settings(worker: Worker) -> str:
    """Write the variables of the worker, for systemd's EnvironmentFile= and for a shell alike."""
    if worker.units:
        signing = f"# The signer is a unit of its own, secureworker-signer.service.\nSECUREWORKER_SIGNER=unix:{SOCKET}"
        credentials = f"# Credentials: the unit loads {worker.path('taskcluster.json')}, which only root can read."
    else:
        signing = f"SECUREWORKER_KEY={shlex.quote('file:' + worker.path('signing.key'))}"
        credentials = f"SECUREWORKER_CREDENTIALS_FILE={shlex.quote(worker.path('taskcluster.json'))}"
    return _WORKER.format(
        policy=shlex.quote(worker.path("policy.yml")),
        root_url=shlex.quote(worker.root_url),
        group=worker.identity.worker_group,
        worker=worker.identity.worker_id,
        state=shlex.quote(worker.state_dir),
        signing=signing,
        credentials=credentials,
        drain=DRAIN_SECONDS,
        log_format="json" if worker.units else "human",
    )


def signer_settings(worker: Worker) -> str:
    """Write the settings of the signer as a unit of its own."""
    identity = worker.identity
    return _SIGNER.format(
        pool=_quoted(str(identity.pool)),
        group=_quoted(identity.worker_group),
        worker=_quoted(identity.worker_id),
        root_url=_quoted(worker.root_url),
        credential=SIGNER_CREDENTIAL,
        log=SIGNER_LOG,
        socket=SOCKET,
    )


def _quoted(text: str) -> str:
    """Write a string of YAML: JSON's are some (YAML 1.2)."""
    return json.dumps(text, ensure_ascii=False)


def _list(items: tuple[str, ...]) -> str:
    return f"[{', '.join(map(_quoted, items))}]"
