"""Sockets in the file system and on loopback, made and found so that nobody else's can be taken for them."""

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from secureworker.core.errors import SettingsError
from secureworker.host.files import opened
from secureworker.host.ownership import others_who_could_change

BACKLOG = 16


@contextmanager
def listening_in_files(path: str) -> Iterator[socket.socket]:
    """Listen on a UNIX socket, in the place of one that a killed process left; leaving removes it.

    It is for this process's user and root alone (0600). In a directory with the set-group-ID bit, which the kernel
    gives its own group to what is made in it, that group may connect too (0660).

    Raises:
        SettingsError: it cannot be made there, somebody else answers there, or others could put theirs in its place.
    """
    directory, name = os.path.split(path)
    problems = others_who_could_change(directory)
    if problems:
        raise SettingsError(f"others could replace the socket {path}: {'; '.join(problems)}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as place:
            # By way of the descriptor: a path in an address has at most 107 bytes (unix(7)).
            near = f"/proc/self/fd/{place}/{name}"
            _make_way(near, path)
            group = os.fstat(place).st_mode & stat.S_ISGID
            # The mode of the descriptor is that of the file from its first moment on; only then is it widened.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(near)
            if group:
                os.chmod(near, 0o660)
            made = os.lstat(near)
        listener.listen(BACKLOG)
        listener.setblocking(False)  # noqa: FBT003 - the socket's own signature
    except OSError as error:
        listener.close()
        raise SettingsError(f"the socket {path} cannot be made: {error.strerror or error}") from error
    except SettingsError:
        listener.close()
        raise
    try:
        yield listener
    finally:
        listener.close()
        with suppress(OSError):
            found = os.lstat(path)
            # Not that of another process, which has taken it for abandoned in this moment.
            if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
                os.unlink(path)


def _make_way(near: str, path: str) -> None:
    try:
        mode = os.lstat(near).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SettingsError(f"{path} is there already, and no socket; give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.setblocking(False)  # noqa: FBT003 - the socket's own signature
        try:
            trial.connect(near)
        except ConnectionRefusedError:
            os.unlink(near)
            return
        except BlockingIOError:
            pass  # So many wait there that nobody more may: it is alive.
    raise SettingsError(f"another process answers at {path}; is a worker with this state directory running already?")


@contextmanager
def listening_on_loopback(address: str, port: int) -> Iterator[socket.socket]:
    """Listen on a port of the loopback interface.

    Raises:
        SettingsError: the address is not one of loopback, or the port is taken.
    """
    if not ipaddress.ip_address(address).is_loopback:
        raise SettingsError(f"{address} is no address of the loopback interface; give 127.0.0.1 or [::1]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(f"the port {address}:{port} cannot be listened on: {error.strerror}") from error
    with listener:
        listener.setblocking(False)  # noqa: FBT003 - the socket's own signature
        yield listener


def connected(path: str, seconds: float) -> socket.socket:
    """Connect to a UNIX socket, however long its path is.

    Raises:
        OSError: nobody answers there, or this user may not.
    """
    directory, name = os.path.split(os.path.abspath(path))
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        channel.settimeout(seconds)
        # O_PATH: a directory that one may pass through and not list, as a state directory is.
        with opened(directory, os.O_PATH | os.O_DIRECTORY) as place:
            channel.connect(f"/proc/self/fd/{place}/{name}")
    except OSError:
        channel.close()
        raise
    return channel
