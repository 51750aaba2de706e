"""What the worker tells the process that shows logs, one message a packet: `show` with a descriptor, then `end`."""

import hashlib
import json
import os
import socket
from dataclasses import dataclass
from typing import Final, TypeAlias

MOST_BYTES: Final = 1024
MOST_REASON: Final = 500
"""Characters of an error: no message outgrows a packet."""


@dataclass(frozen=True, slots=True)
class Show:
    """Show a log from now on."""

    digest: str
    """SHA-256, hexadecimal, of the secret part of its address."""
    descriptor: int
    """To read the log from; the receiver's."""


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more is written to a log."""

    digest: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The process shows logs; empty: all is well, else why it cannot."""

    error: str = ""


Message: TypeAlias = Show | End | Ready


def digest_of(token: str) -> str:
    """Give what the serving process knows of an address."""
    return hashlib.sha256(token.encode()).hexdigest()


def send(channel: socket.socket, message: Message) -> None:
    """Send a message; raises OSError where the other side is gone, or takes nothing."""
    match message:
        case Show():
            socket.send_fds(channel, [json.dumps({"show": message.digest}).encode()], [message.descriptor])
        case End():
            channel.send(json.dumps({"end": message.digest}).encode())
        case Ready():
            channel.send(json.dumps({"ready": message.error[:MOST_REASON]}).encode())


def receive(channel: socket.socket) -> Message | None:
    """Receive a message; None at the end of the conversation.

    Raises:
        OSError: there is none.
        ValueError: it is none of those above.
    """
    packet, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES * 4, 1)
    if not packet:
        return None
    try:
        return _read(packet, descriptors)
    except ValueError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _read(packet: bytes, descriptors: list[int]) -> Message:
    match json.loads(packet):
        case {"show": str(digest)} if descriptors:
            return Show(digest, descriptors[0])
        case {"end": str(digest)} if not descriptors:
            return End(digest)
        case {"ready": str(error)} if not descriptors:
            return Ready(error)
        case _:
            raise ValueError("this is no message about logs, or the descriptor of one could not be received")
