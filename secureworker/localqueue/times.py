"""Times and identifiers in the forms the services put on the wire."""

import base64
import re
import uuid
from datetime import UTC, datetime

_DATE_TIME = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-([0-2]\d|3[01])[Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)"
)


def is_date_time(text: str) -> bool:
    """Whether `text` is an RFC 3339 time with its offset, and exists in the calendar."""
    if not _DATE_TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


def parse(text: str) -> datetime:
    """Read a time that `is_date_time` accepts; like JavaScript's Date, it keeps milliseconds and drops the rest."""
    return truncate(datetime.fromisoformat(text).astimezone(UTC))


def truncate(moment: datetime) -> datetime:
    """Drop what is finer than a millisecond."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def milliseconds(moment: datetime) -> int:
    """Give the milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def from_milliseconds(count: int) -> datetime:
    """Give the time that is `count` milliseconds after 1970."""
    return datetime.fromtimestamp(count // 1000, UTC).replace(microsecond=count % 1000 * 1000)


def javascript(moment: datetime) -> str:
    """Write a time as `Date.toJSON` does: always three digits, always `Z`."""
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def postgresql(moment: datetime) -> str:
    """Write a time as PostgreSQL's `to_json` does: no trailing zeros in the fraction, none where it is 0, `+00:00`."""
    fraction = f".{moment.microsecond // 1000:03d}".rstrip("0").rstrip(".")
    return moment.replace(microsecond=0).isoformat().removesuffix("+00:00") + fraction + "+00:00"


def epoch_seconds(moment: datetime) -> str:
    """Write milliseconds divided by 1000 as JavaScript prints the number."""
    seconds, rest = divmod(milliseconds(moment), 1000)
    return f"{seconds}.{rest:03d}".rstrip("0").rstrip(".")


def slugid() -> str:
    """Make a random v4 slug: 22 characters of URL-safe base64 that do not begin with a dash."""
    raw = bytearray(uuid.uuid4().bytes)
    raw[0] &= 0x7F
    return base64.urlsafe_b64encode(bytes(raw))[:22].decode()
