"""Tasks that would break what carries a plan out: they are refused, and the worker goes on."""

import pytest

from secureworker.core.claim import Json
from secureworker.core.schemas import CompiledSchema
from secureworker.core.templates import Template
from tests.core.claims import a_claim, a_policy, a_rule, admitted, refused

ANYTHING = a_policy(
    a_rule(
        command=(Template("/opt/sign"), Template({"$eval": "payload.words"})),
        payload_schema=CompiledSchema({"type": "object"}),
    )
)


def words(*texts: str) -> dict[str, Json]:
    return {"words": list(texts)}


@pytest.mark.parametrize(
    "payload",
    [
        words("\U0001f511" * 30_000),
        words(*["\U0001f511" * 1000] * 80),
        words(*[""] * 40_000),
        words("a\0b"),
        words("\ud800"),
    ],
    ids=["one of 120 kB in 30,000 characters", "320 kB together", "40,000 empty ones", "a NUL", "no text"],
)
def test_arguments_that_the_kernel_would_not_take_are_refused(payload: dict[str, Json]) -> None:
    (reason,) = refused(a_claim(payload=payload), ANYTHING)
    assert reason.startswith("scripts.sign.command")


def test_arguments_are_measured_in_bytes() -> None:
    payload = words("\U0001f511" * 25_000, *[""] * 1000, "a\nb", "--force")
    assert admitted(a_claim(payload=payload), ANYTHING).argv[1:] == tuple(payload["words"])  # type: ignore[arg-type]


@pytest.mark.parametrize("group", ["a\0b", "a\nLD_PRELOAD=/task/work/x", "fN1SbArXTPSVFNUvaOlinQ\n", "../x"])
def test_a_task_group_that_is_no_id_is_refused(group: str) -> None:
    (reason,) = refused(a_claim(task_group_id=group))
    assert "which is no id" in reason
