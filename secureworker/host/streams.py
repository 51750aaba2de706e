"""Standard input and output, taken for a protocol so that nothing else reads or writes there."""

import os
import sys
from typing import BinaryIO


def taken_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Give standard input and output as files of their own, and put nothing and standard error in their places.

    What this process or its children print from then on goes to standard error, and cannot be taken for a message.
    """
    sys.stdout.flush()
    incoming = os.fdopen(os.dup(0), "rb", buffering=0)
    outgoing = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing
