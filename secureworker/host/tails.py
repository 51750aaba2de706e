"""The ends of files that are still being written."""

import os

from secureworker.core.ids import RunId, TaskId
from secureworker.host.files import opened


def log_file(directory: str, task_id: TaskId, run_id: RunId) -> str:
    """Say where the log of a run is while it is written."""
    return os.path.join(directory, f"{task_id}-{int(run_id)}.log")


def read_tail(path: str, most_bytes: int) -> bytes:
    """Give the last whole lines of a file, `most_bytes` at most; of a single longer line, its end.

    Raises:
        OSError: it cannot be read.
    """
    with opened(path, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
        start = max(0, os.fstat(descriptor).st_size - most_bytes)
        content = os.pread(descriptor, most_bytes, start)
    if not start:
        return content
    _, line_end, whole = content.partition(b"\n")
    if line_end and whole:
        return whole
    # Not from the middle of a character: UTF-8's continuation bytes are 10xxxxxx, and at most three follow each other.
    first = next((place for place in range(min(4, len(content))) if content[place] & 0xC0 != 0x80), 0)  # noqa: PLR2004
    return content[first:]
