"""The worker's own Taskcluster credentials: from a private file or the environment, never from the command line."""

import json
import os
import stat
from collections.abc import MutableMapping
from typing import Final

from secureworker.core.claim import Credentials, parse_credentials
from secureworker.core.errors import SettingsError

SYSTEMD_NAME: Final = "taskcluster"
"""Of the credential in `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=)."""
_VARIABLES: Final = {
    "TASKCLUSTER_CLIENT_ID": "clientId",
    "TASKCLUSTER_ACCESS_TOKEN": "accessToken",
    "TASKCLUSTER_CERTIFICATE": "certificate",
}
_MOST_BYTES: Final = 65_536


def load_credentials(path: str | None, environment: MutableMapping[str, str]) -> Credentials:
    """Find the credentials: the file that is named, else systemd's credential `taskcluster`, else the environment.

    The variables are removed from `environment` in any case: nothing that is started later shall see them.

    Raises:
        SettingsError: there are none, or others can read them. No message shows a value.
    """
    given = {key: environment.pop(name) for name, key in _VARIABLES.items() if name in environment}
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if path is None and directory and os.path.exists(f"{directory}/{SYSTEMD_NAME}"):
        path = f"{directory}/{SYSTEMD_NAME}"
    if path is not None:
        return _parse(path, _read(path))
    if given.keys() >= {"clientId", "accessToken"}:
        return _parse("the environment", json.dumps(given))
    raise SettingsError(
        "there are no Taskcluster credentials; give a file {clientId, accessToken, certificate?} with mode 0600 by "
        "--credentials-file, load one with systemd (LoadCredential=taskcluster:...), or set TASKCLUSTER_CLIENT_ID and "
        "TASKCLUSTER_ACCESS_TOKEN"
    )


def _parse(place: str, text: str) -> Credentials:
    try:
        document = json.loads(text)
        return parse_credentials(document if isinstance(document, dict) else {})
    except ValueError as error:
        # Not json's own message, and not chained: both hold the text.
        why = str(error) if not isinstance(error, json.JSONDecodeError) else "it is no JSON"
        raise SettingsError(
            f"the credentials in {place} cannot be used: {why}; {{clientId, accessToken, certificate?}} is expected"
        ) from None


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise SettingsError(f"the credentials file {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"the credentials file {path} is no regular file")
        if status.st_uid not in (0, os.geteuid()):
            raise SettingsError(f"the credentials file {path} belongs to uid {status.st_uid}; chown it to this user")
        # systemd's own files are 0440, in a directory that only this service can enter.
        others = stat.S_IRWXO | stat.S_IWGRP | (0 if os.path.basename(path) == SYSTEMD_NAME else stat.S_IRGRP)
        if status.st_mode & others:
            raise SettingsError(
                f"others can read or change the credentials file {path} (mode {stat.S_IMODE(status.st_mode):04o}); "
                "chmod it to 0600"
            )
        return os.read(descriptor, _MOST_BYTES).decode(errors="replace")
    finally:
        os.close(descriptor)
