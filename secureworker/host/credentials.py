"""The worker's own Taskcluster credentials: from a private file or the environment, never from the command line."""

import json
import os
from collections.abc import MutableMapping
from typing import Final

from secureworker.core.claim import Credentials, parse_credentials
from secureworker.core.errors import SettingsError
from secureworker.host.private import read_private

SYSTEMD_NAME: Final = "taskcluster"
"""Of the credential in `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=)."""
_VARIABLES: Final = {
    "TASKCLUSTER_CLIENT_ID": "clientId",
    "TASKCLUSTER_ACCESS_TOKEN": "accessToken",
    "TASKCLUSTER_CERTIFICATE": "certificate",
}
_MOST_BYTES: Final = 65_536


def take_variables(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Remove the variables that hold credentials, and give what they held."""
    return {key: environment.pop(name) for name, key in _VARIABLES.items() if name in environment}


def load_credentials(path: str | None, environment: MutableMapping[str, str]) -> Credentials:
    """Find the credentials: the file that is named, else systemd's credential `taskcluster`, else the environment.

    The variables are removed from `environment` in any case: nothing that is started later shall see them.

    Raises:
        SettingsError: there are none, or others can read them. No message shows a value.
    """
    given = take_variables(environment)
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if path is None and directory and os.path.exists(f"{directory}/{SYSTEMD_NAME}"):
        path = f"{directory}/{SYSTEMD_NAME}"
    if path is not None:
        return read_credentials(path)
    if given.keys() >= {"clientId", "accessToken"}:
        return _parse("the environment", json.dumps(given))
    raise SettingsError(
        "there are no Taskcluster credentials; give a file {clientId, accessToken, certificate?} with mode 0600 by "
        "--credentials-file, load one with systemd (LoadCredential=taskcluster:...), or set TASKCLUSTER_CLIENT_ID and "
        "TASKCLUSTER_ACCESS_TOKEN"
    )


def read_credentials(path: str) -> Credentials:
    """Read a file {clientId, accessToken, certificate?} that nobody else can read or change.

    Raises:
        SettingsError: it is not that, or not so. No message shows a value.
    """
    # systemd's own files are 0440, in a directory that only this service can enter.
    of_systemd = os.path.basename(path) == SYSTEMD_NAME
    content = read_private(path, "the credentials file", most_bytes=_MOST_BYTES, group_may_read=of_systemd)
    return _parse(path, content.decode(errors="replace"))


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
