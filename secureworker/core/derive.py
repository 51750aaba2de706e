"""What a rule derives from a payload by its templates: step 7 of a decision."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.outcome import Reason
from secureworker.core.plan import ARTIFACT_DIR, HOME_DIR, WORK_DIR
from secureworker.core.policy import ScriptRule
from secureworker.core.schemas import show
from secureworker.core.templates import CannotRender, Template

_SANDBOX: Final[Mapping[str, Json]] = {"work": WORK_DIR, "artifacts": ARTIFACT_DIR, "home": HOME_DIR}
"""What templates may say of the sandbox."""
_ARGUMENT: Final = re.compile(r"[^\x00\ud800-\udfff]*")
_MAX_BYTES: Final = 100_000
"""One argument: MAX_ARG_STRLEN is 128 KiB (execve(2)). Bytes: a character may be four of them."""
_SCOPE: Final = re.compile(r"[ -~]{1,4096}")
_MAX_ALL_BYTES: Final = 256 * 1024
"""Arguments together: far below what the kernel takes, a quarter of the stack limit (execve(2)). What it does not take
would look like a defect of the runtime, and no task may stop a worker."""
_EACH: Final = 9
"""Bytes that every argument takes beside its own, be it empty: its end, and a pointer to it."""


@dataclass(frozen=True, slots=True)
class Derived:
    """The parts of a plan that depend on the payload."""

    argv: tuple[str, ...]
    requires_scopes: tuple[str, ...]
    config: Mapping[str, Json] | None


def derive(rule: ScriptRule, payload: Mapping[str, Json], *, fixed_only: bool) -> tuple[Derived, tuple[Reason, ...]]:
    """Render everything that a rule derives.

    Args:
        rule: whose templates.
        payload: what its schema has admitted.
        fixed_only: the payload is not as it should be: render only what does not depend on it.

    Returns:
        what could be rendered, and why the rest could not.
    """
    at, reasons = f"scripts.{rule.name}", list[Reason]()

    def texts(key: str, templates: tuple[Template, ...], allowed: re.Pattern[str]) -> tuple[str, ...]:
        found: list[str] = []
        for index, template in enumerate(templates):
            if template.fixed or not fixed_only:
                try:
                    found += _as_texts(template.render(payload, sandbox=dict(_SANDBOX)), allowed)
                except CannotRender as error:
                    reasons.append(Reason(f"{at}.{key}[{index}]", str(error)))
        if sum(len(text.encode()) + _EACH for text in found) > _MAX_ALL_BYTES:
            reasons.append(Reason(f"{at}.{key}", f"it becomes longer than {_MAX_ALL_BYTES} bytes in all"))
        return tuple(found)

    argv = texts("command", rule.command, _ARGUMENT)
    scopes = texts("requires-scopes", rule.requires_scopes, _SCOPE)
    config: Mapping[str, Json] | None = None
    if rule.config is not None and (rule.config.fixed or not fixed_only):
        try:
            config = _as_config(rule.config.render(payload, sandbox=dict(_SANDBOX)))
        except CannotRender as error:
            reasons.append(Reason(f"{at}.config", str(error)))
    return Derived(argv, scopes, config), tuple(reasons)


def _as_texts(value: Json, allowed: re.Pattern[str]) -> list[str]:
    """Give what a template became as texts: one, several, or none; raise `CannotRender` where it is none of these."""
    found: list[str] = []
    for text in value if isinstance(value, list) else [] if value is None else [value]:
        if not isinstance(text, str):
            raise CannotRender(f"it becomes {show(text)}, and a text is needed")
        if not allowed.fullmatch(text) or len(text.encode()) > _MAX_BYTES:
            raise CannotRender(f"it becomes {show(text)}, which is too long or has characters that are not allowed")
        found.append(text)
    return found


def _as_config(value: Json) -> dict[str, Json]:
    """Add the worker's own keys; they win."""
    if not isinstance(value, dict):
        raise CannotRender(f"it becomes {show(value)}, and an object is needed")
    return {"verbose": False, **value, "work_dir": WORK_DIR, "artifact_dir": ARTIFACT_DIR}
