"""HTML that cannot be made of text by mistake: a `str` is always escaped, and only `element` makes markup."""

import html
from dataclasses import dataclass
from typing import Final, TypeAlias

_VOID: Final = frozenset({"meta", "rect"})


@dataclass(frozen=True, slots=True)
class Html:
    """Markup."""

    text: str


Child: TypeAlias = "str | int | Html | None"


def element(tag: str, *children: Child, **attributes: str | int | None) -> Html:
    """Make an element.

    Args:
        tag: its name, always one of ours.
        children: markup as it is, text escaped; None is nothing.
        attributes: by name, with `_` for `-` and one at the end of a keyword of Python; None leaves one out.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{given}>" if tag == "meta" else f"<{tag}{given}/>")
    return Html(f"<{tag}{given}>{joined(*children).text}</{tag}>")


def joined(*children: Child) -> Html:
    """Put markup and text in a row."""
    texts = (
        child.text if isinstance(child, Html) else html.escape(str(child)) for child in children if child is not None
    )
    return Html("".join(texts))


def style(rules: str) -> Html:
    """Make a style element of rules of ours, which are not escaped: they are constants of this package."""
    return Html(f"<style>{rules}</style>")
