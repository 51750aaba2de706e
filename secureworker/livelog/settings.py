"""Where live logs are shown, as an operator says it."""

import re
from dataclasses import dataclass
from typing import Final

from secureworker.core.errors import SettingsError

_URL: Final = re.compile(r"https://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?")
_PLACE: Final = re.compile(r"(?:(\[[0-9a-fA-F:.]+\]|[0-9.]+):)?([0-9]{1,5})")
_MOST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class LiveLogSettings:
    """Where live logs are shown, and as whom."""

    url: str
    """`https://host:port`, as strangers reach it; without a path."""
    listen: tuple[str, int]
    """Address and port to bind; port 0: any."""
    certificate: str
    """PEM file of the chain."""
    key: str
    """PEM file that nobody but root and this user can read."""
    log_format: str = "human"


def read_place(text: str) -> tuple[str, int]:
    """Read `address:port`, `[address]:port`, or a port alone, which is on all addresses of IPv4.

    Raises:
        SettingsError: it is none of these.
    """
    found = _PLACE.fullmatch(text)
    if found is None or int(found[2]) > _MOST_PORT:
        raise SettingsError(f"live logs are to be shown at {text!r}; write an address and a port: 0.0.0.0:60098")
    return (found[1] or "0.0.0.0").strip("[]"), int(found[2])  # noqa: S104 - strangers are to reach it


def read_url(text: str) -> str:
    """Read the address by which strangers reach live logs; give it without a slash at its end.

    Raises:
        SettingsError: it is not one of https, or has a path.
    """
    if _URL.fullmatch(text) is None:
        raise SettingsError(
            f"live logs are to be found at {text!r}; write https, a host and a port: https://host:60098"
        )
    return text.rstrip("/")
