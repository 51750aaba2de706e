"""Durations and sizes as people write them."""

import re
from datetime import timedelta
from typing import Final

_SECONDS: Final = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
_BYTES: Final = {
    "TiB": 1024**4,
    "GiB": 1024**3,
    "MiB": 1024**2,
    "KiB": 1024,
    "TB": 1000**4,
    "GB": 1000**3,
    "MB": 1000**2,
    "kB": 1000,
    "B": 1,
}
_PART = re.compile(r"([0-9]+)([ywdhms])")
_SIZE = re.compile(r"([0-9]+) ?([A-Za-z]+)")


def parse_duration(text: str) -> timedelta:
    """Read `1h30m`; the schema has checked the form. A year is 365 days."""
    return timedelta(seconds=sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text)))


def parse_size(text: str) -> int:
    """Read `2GiB` as bytes; the schema has checked the form."""
    match = _SIZE.fullmatch(text)
    if match is None or match[2] not in _BYTES:
        raise ValueError(f"{text!r} is no size; expected is one like 10GiB")
    return int(match[1]) * _BYTES[match[2]]


def spell_duration(span: timedelta) -> str:
    """Write a span as `parse_duration` reads it."""
    left, spelled = int(span.total_seconds()), ""
    for unit, seconds in _SECONDS.items():
        # Weeks divide neither years nor what people think in.
        if unit != "w" and left >= seconds:
            spelled += f"{left // seconds}{unit}"
            left %= seconds
    return spelled or "0s"


def spell_size(count: int) -> str:
    """Write a number of bytes as `parse_size` reads it, in the largest unit that is exact."""
    return next(f"{count // size}{unit}" for unit, size in _BYTES.items() if count % size == 0 and count >= size)
