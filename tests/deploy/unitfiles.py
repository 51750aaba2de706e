"""Reading unit files as systemd does, as far as ours go."""

from pathlib import Path

Unit = dict[str, dict[str, list[str]]]
"""Section, key, and every value that it is given; an empty one resets those before it."""


def read_unit(path: Path) -> Unit:
    """Read a unit."""
    sections: Unit = {}
    section: dict[str, list[str]] = {}
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            assert equals, line
            values = section.setdefault(key, [])
            if value:
                values.append(value)
            else:
                values.clear()
    return sections


def words(unit: Unit, key: str, section: str = "Service") -> list[str]:
    """Give all words of a key's values."""
    return [word for value in unit[section].get(key, []) for word in value.split()]


def seconds(text: str) -> int:
    """Read a time span as units write it (systemd.time(7)), as far as ours go."""
    for ending, factor in (("min", 60), ("s", 1), ("h", 3600)):
        if text.endswith(ending):
            return int(text.removesuffix(ending)) * factor
    return int(text)
