"""Test cases of a policy: tasks that it must admit, and tasks that it must refuse, and for which reasons."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from secureworker.core.claim import Json
from secureworker.core.decide import Admitted
from secureworker.core.errors import PolicyError
from secureworker.core.outcome import Refused
from secureworker.core.policy import Policy
from secureworker.core.schemas import CompiledSchema
from secureworker.host.documents import BadDocument, Document, parse
from secureworker.policyfile.load import read_schema
from secureworker.policyfile.places import Places
from secureworker.policyfile.trial import ask


@dataclass(frozen=True, slots=True)
class Case:
    """One task, and what must become of it."""

    name: str
    task: Mapping[str, Json]
    """A task definition, or a part of one: the rest is as the policy would have it."""
    admit: str
    """The script that must be chosen; empty where the task must be refused."""
    argv: tuple[str, ...] | None
    """The arguments that it must get, after the executable; None: any."""
    refuse: tuple[str, ...]
    """Keys of the policy that must refuse: exactly these."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a case went."""

    case: Case
    passed: bool
    found: str
    """What the policy made of the task, in a sentence or several lines."""


def read_cases(path: str) -> tuple[Case, ...]:
    """Read a file of cases.

    Raises:
        PolicyError: it is none.
    """
    places = Places(os.path.dirname(os.path.abspath(path)), host=False)
    try:
        document = parse(places.read(os.path.abspath(path)), path)
    except BadDocument as error:
        raise PolicyError(error.problems) from error
    except ValueError as error:
        raise PolicyError((f"{path}: {error}",)) from error
    problems = tuple(
        document.complain(where, message)
        for where, message in document.check(CompiledSchema(read_schema("policy-cases")))
    )
    if problems:
        raise PolicyError(problems)
    return tuple(_cases(document))


def _cases(document: Document) -> Iterator[Case]:
    """Read cases; the schema has seen to their shape."""
    assert isinstance(document.value, dict)
    cases = document.value["cases"]
    assert isinstance(cases, list)
    for case in cases:
        assert isinstance(case, dict)
        task, argv, refuse = case.get("task", {}), case.get("argv"), case.get("refuse", [])
        assert isinstance(task, dict)
        assert isinstance(refuse, list)
        yield Case(
            name=str(case["name"]),
            task=task,
            admit=str(case.get("admit", "")),
            argv=tuple(map(str, argv)) if isinstance(argv, list) else None,
            refuse=tuple(map(str, refuse)),
        )


def try_case(case: Case, policy: Policy) -> Verdict:
    """Ask the policy, and compare."""
    match ask(case.task, policy):
        case Admitted(plan):
            found = f"admitted as {plan.script}, with the arguments {json.dumps(plan.argv[1:])}"
            passed = case.admit == plan.script and case.argv in {None, plan.argv[1:]}
            return Verdict(case, passed, found)
        case Refused(reasons):
            rules = {reason.rule for reason in reasons}
            passed = not case.admit and rules == set(case.refuse)
            return Verdict(case, passed, "\n".join(["refused", *(f"  {reason}" for reason in reasons)]))
