"""What is asked of the site of a repository, and what its answers mean. Nothing here asks.

All addresses are templates of the policy, with their hosts written out. What is put into them is a revision, a branch
or a tag of good form: nothing that could lead to another host, or to another repository of the same one.
"""

from dataclasses import dataclass

from secureworker.core.claim import Json
from secureworker.core.evidence import BadEvidence, strict_json

REVISION, BRANCH, TAG = "{revision}", "{branch}", "{tag}"


@dataclass(frozen=True, slots=True)
class Question:
    """An address that answers in JSON, and what it must say there."""

    url: str
    key: str
    """Where it is said: names of keys, with dots between them."""
    values: tuple[str, ...]
    """One of these it must be; `{revision}` stands for the revision in full."""

    def __str__(self) -> str:
        return f"{self.url} says {self.key}: {' or '.join(self.values)}"


@dataclass(frozen=True, slots=True)
class Website:
    """Where a repository is read over https."""

    file: str
    """`.taskcluster.yml` of `{revision}`."""
    branch: Question
    """Whether `{revision}` is on `{branch}`."""
    tag: Question | None
    """Whether `{tag}` is `{revision}`; None: releases cannot be traced."""

    def __str__(self) -> str:
        asked = [str(each) for each in (self.branch, self.tag) if each is not None]
        return "; ".join((self.file, *asked))


def fill(url: str, revision: str, ref: str = "") -> str:
    """Put a revision, and a branch or tag, into an address.

    Args:
        url: of the policy.
        revision: 40 hexadecimal digits.
        ref: a name of plain characters; its slashes are no part of the path.
    """
    # Of the form that `core.origin` lets through, a slash is all that means something in a path; and it has no "..".
    name = ref.replace("/", "%2F")
    return url.replace(REVISION, revision).replace(BRANCH, name).replace(TAG, name)


def agrees(question: Question, answer: bytes, revision: str) -> bool:
    """Whether an answer says what it must. What is no JSON, or says nothing of it, does not."""
    try:
        value: Json = strict_json(answer)
    except BadEvidence:
        return False
    for name in question.key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return isinstance(value, str) and value in [each.replace(REVISION, revision) for each in question.values]
