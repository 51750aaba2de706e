"""What a mirror of a repository on this host has of a revision. Asked with git, which fetches nothing and runs nothing.

The mirror is the operator's: whoever can write to it decides what counts as the tree.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.errors import HostError, ServiceError
from secureworker.core.ids import TaskId
from secureworker.core.origin import NoOrigin, Origin, TraceRule, make_context, read_origin
from secureworker.core.trace import Tree
from secureworker.host.documents import BadDocument, parse_yaml

_SECONDS: Final = 60
_MAX_FILE: Final = 1024 * 1024
_MAX_REFS: Final = 4 * 1024 * 1024
_ENVIRONMENT: Final = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    # Only the mirror's own configuration counts; nobody is asked, nothing is fetched, no object stands for another.
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": "/dev/null",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ALLOW_PROTOCOL": "",
}


def read_tree(task_id: TaskId, definition: Mapping[str, Json], rule: TraceRule, root_url: str) -> Tree:
    """Say what the mirror has of the revision that a decision task names, and what its `.taskcluster.yml` makes.

    It is rendered only where the revision is on a branch that the policy allows: what is not may be anybody's.

    Raises:
        HostError: the mirror cannot be read.
        ServiceError: git took too long.
    """
    try:
        origin = read_origin(definition, rule)
    except NoOrigin as error:
        return Tree(missing=str(error))
    refs = _refs(origin)
    if not refs:
        return Tree(missing=f"the mirror has no commit {origin.revision} on any branch; is it up to date?")
    wanted = {f"refs/heads/{each}" for each in origin.repository.branches if not each.endswith("*")}
    begin = tuple(f"refs/heads/{each[:-1]}" for each in origin.repository.branches if each.endswith("*"))
    if not any(ref in wanted or (begin and ref.startswith(begin)) for ref in refs):
        return Tree(refs=refs, unrendered="the revision is on no branch that the policy allows")
    try:
        content = _file(origin)
        template = parse_yaml(content.decode("utf-8"), ".taskcluster.yml").value
        context = make_context(origin, task_id, definition, root_url)
    except (NoOrigin, BadDocument, UnicodeDecodeError, LookupError) as error:
        return Tree(refs=refs, unrendered=str(error)[:500])
    rendered, why = render(template, context, task_id)
    return Tree(refs=refs, rendered=rendered, unrendered=why)


def _refs(origin: Origin) -> tuple[str, ...]:
    """Give the branches that contain the revision, and the tags that are the revision."""
    mirror, revision = origin.repository.mirror, origin.revision
    code, _ = _git(mirror, "rev-parse", "--git-dir")
    if code:
        raise HostError(f"the mirror {mirror} cannot be read by git; is it a bare repository that may be read?")
    code, kind = _git(mirror, "cat-file", "-t", revision)
    if code or kind.strip() != b"commit":
        return ()
    _, branches = _git(mirror, "for-each-ref", f"--contains={revision}", "--format=%(refname)", "refs/heads")
    form = "--format=%(refname) %(objectname) %(*objectname)"
    _, tags = _git(mirror, "for-each-ref", f"--points-at={revision}", form, "refs/tags")
    found = [line for line in branches.decode("utf-8", "replace").splitlines() if line]
    found += [line.split(" ")[0] for line in tags.decode("utf-8", "replace").splitlines() if line]
    return tuple(found)


def _file(origin: Origin) -> bytes:
    name = f"{origin.revision}:.taskcluster.yml"
    code, size = _git(origin.repository.mirror, "cat-file", "-s", name)
    if code:
        raise LookupError("the revision has none")
    if int(size) > _MAX_FILE:
        raise LookupError(f"it has {int(size)} bytes; {_MAX_FILE} are read")
    code, content = _git(origin.repository.mirror, "cat-file", "blob", name)
    if code:
        raise LookupError("it is no file")
    return content


def _git(mirror: str, *words: str) -> tuple[int, bytes]:
    argv = ["/usr/bin/git", "-c", f"safe.directory={mirror}", f"--git-dir={mirror}", *words]
    code, output = _run(argv, b"")
    if len(output) > _MAX_REFS:
        raise HostError(f"git says {len(output)} bytes about the mirror {mirror}; {_MAX_REFS} are read")
    return code, output


def _run(argv: list[str], given: bytes) -> tuple[int, bytes]:
    try:
        done = subprocess.run(
            argv, input=given, env=_ENVIRONMENT, cwd="/", capture_output=True, timeout=_SECONDS, check=False
        )
    except OSError as error:
        raise HostError(f"{argv[0]} cannot be started: {error.strerror}; install it") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{argv[0]} took more than {_SECONDS} s") from error
    return done.returncode, done.stdout


def render(template: Json, context: dict[str, Json], task_id: TaskId) -> tuple[Json, str]:
    """Render in a process of its own, which cannot take more time and memory than it has.

    Returns:
        what it is, or why it could not be rendered.
    """
    given = json.dumps({"template": template, "context": context, "taskId": task_id}).encode()
    code, output = _run([sys.executable, "-I", "-m", "secureworker.artifacts.rendering"], given)
    try:
        answer = json.loads(output) if code == 0 else {}
    except ValueError:
        answer = {}
    if "rendered" in answer:
        return answer["rendered"], ""
    return None, str(answer.get("why") or "it takes more time or memory to render than it is given")
