"""Files that other users read, each replaced as a whole."""

import os
import tempfile
from contextlib import suppress
from typing import Final

_MODE: Final = 0o644
"""node_exporter, and who looks at a heartbeat, are other users."""


def replace_file(path: str, content: bytes) -> None:
    """Put `content` in the place of what is at `path`: who reads it sees the old or the new, and never a part.

    Raises:
        OSError: it cannot be written.
    """
    directory, name = os.path.split(os.path.abspath(path))
    # node_exporter reads `*.prom`: the new one must not be called so before it is whole.
    descriptor, new = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, _MODE)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
