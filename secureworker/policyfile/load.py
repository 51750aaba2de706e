"""From a path to a `Policy`, or to everything that is wrong with it."""

import hashlib
import json
import os
from functools import cache
from importlib.resources import files
from typing import Any

from secureworker.core.errors import PolicyError
from secureworker.core.ids import Sha256, WorkerPool
from secureworker.core.policy import Always, PayloadEquals, Policy, ScopeEquals, ScriptRule, When
from secureworker.core.schemas import CompiledSchema, Path
from secureworker.host.documents import BadDocument, parse
from secureworker.host.sanitise import first_hidden
from secureworker.policyfile.common import read_constraints, read_trust, read_worker_scopes
from secureworker.policyfile.draft import Draft
from secureworker.policyfile.places import Places
from secureworker.policyfile.rules import check_environment, read_rule


def read_schema(name: str) -> dict[str, Any]:
    """Give one of the schemas that come with the program: `policy`."""
    text = files("secureworker").joinpath("_schemas", f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def policy_schema() -> CompiledSchema:
    """Give the schema of the policy file, compiled once."""
    return CompiledSchema(read_schema("policy"))


def load(path: str, *, host: bool = True) -> Policy:
    """Read, check and resolve a policy.

    Blocking: it reads and hashes every file that the policy pins.

    Args:
        path: the policy file. Relative paths in it start from its directory.
        host: whether this host is the one the policy is for. Without it, owners, digests and mounts are not looked at:
            for reviewing and testing a policy elsewhere, never for running it.

    Raises:
        PolicyError: it cannot be used; all problems that were found, in the order of the file.
    """
    full = os.path.abspath(path)
    places = Places(os.path.dirname(full), host=host)
    try:
        content = places.read(full)
        _check_visible(content, path)
        document = parse(content, path)
    except BadDocument as error:
        raise PolicyError(error.problems) from error
    except ValueError as error:
        raise PolicyError((f"{path}: {error}",)) from error
    draft = Draft(document, places, policy_schema())
    draft.complain_all((), places.exposed(full))
    policy = _read(draft, Sha256(hashlib.sha256(content).hexdigest()))
    draft.finish()
    return policy


def _check_visible(content: bytes, path: str) -> None:
    """Refuse what reviewers do not see, comments included: characters that hide, or turn the order round."""
    text = content.decode("utf-8", "replace").removeprefix("\ufeff")
    place = first_hidden(text)
    if place is not None:
        line = text.count("\n", 0, place) + 1
        what = f"the invisible character U+{ord(text[place]):04X}"
        raise PolicyError((f"{path}:{line}: found {what}; a policy is read by people: remove it",))


def _read(draft: Draft, sha256: Sha256) -> Policy:
    tasks, trust = read_constraints(draft), read_trust(draft)
    check_environment(draft, ("defaults", "environment"))
    names = draft.keys(("scripts",))
    scripts = tuple(read_rule(draft, name, tasks, trust, alone=len(names) == 1) for name in names)
    _check_choices(draft, scripts)
    return Policy(
        sha256=sha256,
        root_url=draft.get(("root-url",), ""),
        worker_pool=WorkerPool.parse(draft.get(("worker-pool",), "none/none")),
        worker_scopes=read_worker_scopes(draft),
        max_capacity=draft.get(("max-capacity",), 1),
        tasks=tasks,
        scripts=scripts,
        trust=trust.pools,
        trust_file=trust.file,
        files=draft.places.files(),
    )


def _check_choices(draft: Draft, scripts: tuple[ScriptRule, ...]) -> None:
    """No two scripts are chosen by the same thing, and all by the same kind of thing."""
    chosen: dict[When, str] = {}
    kinds = {type(rule.when) for rule in scripts}
    for rule in scripts:
        at: Path = ("scripts", rule.name, "when")
        # Two prefixes may be cut differently and make the same scope.
        when = ScopeEquals(rule.when.prefix + rule.when.equals, "") if isinstance(rule.when, ScopeEquals) else rule.when
        if when in chosen and not isinstance(when, Always):
            draft.complain(at, f"scripts.{chosen[when]} is chosen by the same already")
        chosen[when] = rule.name
        if {ScopeEquals, PayloadEquals} <= kinds and isinstance(rule.when, PayloadEquals):
            draft.complain(at, "other scripts are chosen by scopes; choose all by scopes, or all by the payload")
