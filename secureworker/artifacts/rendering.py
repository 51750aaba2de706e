"""The process in which a repository's `.taskcluster.yml` is rendered. JSON on stdin, JSON on stdout, nothing else.

The whole of JSON-e is needed for that, and with it loops in loops. The file was reviewed, unlike a payload; yet what it
costs is bounded, by the kernel.
"""

import json
import resource
import sys
from typing import Any, Final

import jsone

_CPU_SECONDS: Final = 5
_MEMORY_BYTES: Final = 1024 * 1024 * 1024
_MAX_RENDERED: Final = 4 * 1024 * 1024


def answer(given: dict[str, Any]) -> dict[str, Any]:
    """Render; give what it is, or why not."""
    labels: set[str] = set()

    def as_slugid(label: str) -> str:
        # The one task that an event makes is the decision task, and that has an id.
        labels.add(label)
        return str(given["taskId"])

    context = {**given["context"], "as_slugid": as_slugid}
    try:
        rendered = jsone.render(given["template"], context)
        size = len(json.dumps(rendered))
    # JSON-e raises its own errors, and whatever Python does with operands of the wrong kind: all mean the same here.
    except Exception as error:  # noqa: BLE001
        return {"why": f"it cannot be rendered: {error}"[:500]}
    if len(labels) > 1:
        return {"why": "it makes more than one task id of this event"}
    if size > _MAX_RENDERED:
        return {"why": f"it becomes {size} characters long; {_MAX_RENDERED} are read"}
    return {"rendered": rendered}


def main() -> None:
    """Answer once."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
