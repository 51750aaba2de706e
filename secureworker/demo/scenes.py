"""The tasks of the demonstration, and how each must end. Values only: the pool and the scopes are `demo.yml`'s."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import arrow

from secureworker.core.claim import Json

WORKER_POOL = "demo-provisioner/release-signing"
SCHEDULER_ID = "demo"
PROJECT_ID = "demo"
ACTION = "project:demo:releng:action:"
FORBIDDEN = "project:demo:releng:cert:release"


@dataclass(frozen=True, slots=True)
class Scene:
    """One task, and how it must end."""

    name: str
    story: str
    """What the task's author does, and what is to be seen."""
    scopes: tuple[str, ...]
    payload: Mapping[str, Json]
    state: str
    """The run's final state at the Queue."""
    reason: str
    """Its `reasonResolved`."""
    log_says: tuple[str, ...]
    """What the public task log must hold."""
    cancel: bool = False
    """Whether its author cancels it while it runs."""
    log_lines: int = 4
    """How many of the log's last lines are shown."""
    signed: tuple[str, ...] = ()
    """Artifacts that must be published, listed in the chain of trust, and verify."""


def scenes(private_paths: tuple[str, ...], addresses: tuple[str, ...]) -> tuple[Scene, ...]:
    """Give the four tasks, in their order.

    Args:
        private_paths: files of this host that the nosy script is told to look for: the real key and credentials.
        addresses: `host:port` of the real services on this host's loopback.
    """
    return (
        Scene(
            name="build-tarball",
            story="builds a source archive with checksums from the files in its payload",
            scopes=(f"{ACTION}build-tarball",),
            payload={
                "name": "hello",
                "version": "1.0",
                "files": {
                    "README": "A release, built by a task that could not do anything else.\n",
                    "hello.c": '#include <stdio.h>\n\nint main(void)\n{\n    puts("hello");\n}\n',
                },
            },
            state="completed",
            reason="completed",
            log_says=("exit code: 0",),
            signed=("public/build/hello-1.0.tar.gz", "public/build/SHA256SUMS"),
        ),
        Scene(
            name="greedy",
            story="asks for the release certificate too, which the policy forbids",
            scopes=(f"{ACTION}build-tarball", FORBIDDEN),
            payload={"name": "hello", "version": "1.0", "files": {"README": "hello\n"}},
            state="exception",
            reason="malformed-payload",
            log_says=("refused:", FORBIDDEN),
        ),
        Scene(
            name="nosy",
            story="tries to read this host's secrets, the worker's key among them, and to reach the network",
            scopes=(f"{ACTION}nosy",),
            payload={"paths": list(private_paths), "addresses": list(addresses)},
            state="completed",
            reason="completed",
            log_says=("attempts were refused", "exit code: 0"),
            log_lines=26,
            signed=("public/nosy-report.txt",),
        ),
        Scene(
            name="wait",
            story="waits for ten minutes, and is cancelled by its author meanwhile",
            scopes=(f"{ACTION}wait",),
            payload={"seconds": 600},
            state="exception",
            reason="canceled",
            log_says=("cancel",),
            cancel=True,
        ),
    )


def definition(scene: Scene, task_group_id: str, now: datetime) -> dict[str, Json]:
    """Give the body of `createTask` for a scene."""
    created = arrow.get(now)
    return {
        "taskQueueId": WORKER_POOL,
        "schedulerId": SCHEDULER_ID,
        "projectId": PROJECT_ID,
        "taskGroupId": task_group_id,
        "created": created.for_json(),
        "deadline": created.shift(hours=1).for_json(),
        "expires": created.shift(days=2).for_json(),
        "scopes": list(scene.scopes),
        "payload": dict(scene.payload),
        "metadata": {
            "name": scene.name,
            "description": f"A task that {scene.story}.",
            "owner": "release-engineer@example.com",
            "source": "https://example.com/demo",
        },
    }
