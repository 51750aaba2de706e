"""Where a decision task says that it comes from, and what the repository is rendered with to see whether that is so.

All that is read here are claims of a task that nobody has vouched for. They are held against forms and the
policy, and make the context of a rendering; what counts is that the rendering is then the task.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from secureworker.core.claim import Json, parse_time
from secureworker.core.ids import TaskId
from secureworker.core.schemas import show
from secureworker.core.scopes import satisfies
from secureworker.core.website import Website

_REVISION = re.compile(r"[0-9a-f]{40}")
# All of these end up in commands that `.taskcluster.yml` makes: nothing that means something to a shell.
_REF = re.compile(r"refs/(?:heads|tags)/[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_EMAIL = re.compile(r"[A-Za-z0-9._+-]{1,100}@[A-Za-z0-9.-]{1,100}")
_WORD = re.compile(r"[A-Za-z0-9._-]{1,100}")
_ARGUMENTS = re.compile(r"[A-Za-z0-9 ._/=:,-]{0,500}")
_NOBODY: Final = "0" * 40
"""What GitHub gives for the revision before a branch was there."""
_NOREPLY: Final = "@users.noreply.github.com"
PUSH, RELEASE, CRON = "github-push", "github-release", "cron"


@dataclass(frozen=True, slots=True)
class TracedRepository:
    """A repository whose `.taskcluster.yml` decision tasks may come from."""

    scheme: str
    host: str
    owner: str
    repository: str
    mirror: str
    """A bare repository on this host, that somebody else keeps up to date; empty where `website` is given."""
    branches: tuple[str, ...]
    """Names; a trailing `*` stands for the rest of one."""
    prefix: str
    """Of the variables in the decision task's environment: `<prefix>_HEAD_REPOSITORY`, `_HEAD_REV`, `_HEAD_REF`."""
    website: Website | None = None
    """Where it is read over https, without a mirror."""

    @property
    def place(self) -> str:
        """Say where it is read."""
        return self.mirror if self.website is None else str(self.website)

    @property
    def url(self) -> str:
        """Give its address."""
        return f"{self.scheme}://{self.host}/{self.full_name}"

    @property
    def full_name(self) -> str:
        """Give its name on its host."""
        return f"{self.owner}/{self.repository}" if self.owner else self.repository

    @property
    def ssh_url(self) -> str:
        """Give its address as GitHub has it for git over ssh, which tasks name too that fetch it with a key."""
        return f"git@{self.host}:{self.full_name}.git"


@dataclass(frozen=True, slots=True)
class TraceRule:
    """How inputs are traced to the tree."""

    decision_pools: tuple[str, ...]
    repositories: tuple[TracedRepository, ...]
    max_depth: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a decision task says that it comes from. Of a good form, and of a repository in the policy."""

    repository: TracedRepository
    revision: str
    ref: str
    """`refs/heads/<branch>` or `refs/tags/<tag>`."""
    kind: str
    """`github-push`, `github-release` or `cron`."""
    named: str
    """The repository's address, as the task spells it: one of the two."""


class NoOrigin(ValueError):
    """A decision task does not say where it comes from, or says what may not be."""


def read_origin(definition: Mapping[str, Json], rule: TraceRule) -> Origin:
    """Read where a decision task says that it comes from.

    1. `extra.tasks_for` is a kind of event that is known here.
    2. Its environment names a repository of the policy, a revision and a ref of good form.
    3. A branch is one that the policy allows. A release is of a tag; all else is of a branch.

    Raises:
        NoOrigin: one of these is not so.
    """
    # 1.
    kind = _object(definition.get("extra")).get("tasks_for")
    if kind not in (PUSH, RELEASE, CRON):
        raise NoOrigin(f"extra.tasks_for is {show(kind)}; {PUSH}, {RELEASE} and {CRON} can be traced")
    # 2.
    environment = _object(_object(definition.get("payload")).get("env"))
    named = [
        each
        for each in rule.repositories
        if environment.get(f"{each.prefix}_HEAD_REPOSITORY") in (each.url, each.ssh_url)
    ]
    if len(named) != 1:
        names = ", ".join(f"{each.prefix}_HEAD_REPOSITORY={each.url}" for each in rule.repositories)
        raise NoOrigin(f"its environment names no repository of the policy; expected one of {names}")
    (repository,) = named
    revision = environment.get(f"{repository.prefix}_HEAD_REV")
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        raise NoOrigin(f"{repository.prefix}_HEAD_REV is {show(revision)}; expected 40 hexadecimal digits")
    ref = environment.get(f"{repository.prefix}_HEAD_REF")
    if isinstance(ref, str) and not ref.startswith("refs/"):
        ref = f"refs/{'tags' if kind == RELEASE else 'heads'}/{ref}"
    # Git has no such names (git-check-ref-format(1)); in an address, two dots would lead elsewhere.
    if not isinstance(ref, str) or not _REF.fullmatch(ref) or any(part in ref for part in ("..", "//", "/.")):
        raise NoOrigin(f"{repository.prefix}_HEAD_REF is {show(ref)}; expected a branch or tag of plain characters")
    # 3.
    if ref.startswith("refs/tags/") != (kind == RELEASE):
        raise NoOrigin(f"it is for {kind}, and {ref} is none of those")
    if kind != RELEASE and not allowed(repository, ref):
        raise NoOrigin(f"{ref} is no branch that tasks may come from: {', '.join(repository.branches)}")
    return Origin(repository, revision, ref, kind, str(environment[f"{repository.prefix}_HEAD_REPOSITORY"]))


def allowed(repository: TracedRepository, ref: str) -> bool:
    """Whether tasks may come from a branch, `refs/heads/...`."""
    return ref.startswith("refs/heads/") and satisfies(repository.branches, ref.removeprefix("refs/heads/"))


def make_context(origin: Origin, task_id: TaskId, definition: Mapping[str, Json], root_url: str) -> dict[str, Json]:
    """Make what `.taskcluster.yml` is rendered with: what GitHub or a cron hook told of the event, as far as it shows.

    The time is that of the task's creation. Who pushed is its metadata's owner: what nobody can know here is taken from
    the task, in a form that means nothing to a shell. What is not known is not there, and a `.taskcluster.yml` that
    asks for it cannot be rendered.

    Raises:
        NoOrigin: something of it has not that form.
    """
    try:
        now = parse_time(definition.get("created"))
    except ValueError as error:
        raise NoOrigin(f"created: {error}") from error
    owner = _form(_EMAIL, _object(definition.get("metadata")).get("owner"), "metadata.owner")
    known: dict[str, Json] = {
        "tasks_for": origin.kind,
        "taskcluster_root_url": root_url,
        "now": now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03}Z",
    }
    if origin.kind == CRON:
        return {**known, **_cron(origin, task_id, definition, owner)}
    where = origin.repository
    login = owner.removesuffix(_NOREPLY) if owner.endswith(_NOREPLY) else owner.partition("@")[0]
    event: dict[str, Json] = {
        "repository": {
            "name": where.repository,
            "full_name": where.full_name,
            "url": where.url,
            "html_url": where.url,
            "clone_url": f"{where.url}.git",
            "ssh_url": where.ssh_url,
        },
        "sender": {"login": login},
    }
    if origin.kind == RELEASE:
        tag = origin.ref.removeprefix("refs/tags/")
        return {
            **known,
            "event": {
                **event,
                "action": "published",
                "release": {"tag_name": tag, "target_commitish": origin.revision},
            },
        }
    environment = _object(_object(definition.get("payload")).get("env"))
    before = environment.get(f"{where.prefix}_BASE_REV", _NOBODY)
    return {
        **known,
        "event": {
            **event,
            "ref": origin.ref,
            "before": _form(_REVISION, before, f"{where.prefix}_BASE_REV"),
            "after": origin.revision,
            "base_ref": None,
            "pusher": {"name": login, "email": owner},
        },
    }


def _cron(origin: Origin, task_id: TaskId, definition: Mapping[str, Json], owner: str) -> dict[str, Json]:
    cron = _object(_object(definition.get("extra")).get("cron"))
    return {
        "repository": {"url": origin.named, "project": origin.repository.repository},
        "push": {"revision": origin.revision, "branch": origin.ref.removeprefix("refs/heads/"), "owner": owner},
        "cron": {
            "task_id": _form(_WORD, cron.get("task_id"), "extra.cron.task_id"),
            "job_name": _form(_WORD, cron.get("job_name"), "extra.cron.job_name"),
            "job_symbol": _form(_WORD, cron.get("job_symbol"), "extra.cron.job_symbol"),
            "quoted_args": _form(_ARGUMENTS, cron.get("quoted_args"), "extra.cron.quoted_args"),
        },
        "ownTaskId": task_id,
    }


def _form(form: re.Pattern[str], value: Json, what: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise NoOrigin(f"{what} is {show(value)}, which is nothing to render a task with")
    return value


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}
