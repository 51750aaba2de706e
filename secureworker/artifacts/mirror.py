"""What a mirror of a repository on this host has of a revision. Asked with git, which fetches nothing and runs nothing.

The mirror is the operator's: whoever can write to it decides what counts as the tree.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.errors import HostError, ServiceError
from secureworker.core.ids import TaskId
from secureworker.core.origin import NoOrigin, Origin, allowed, make_context
from secureworker.core.trace import Tree
from secureworker.host.documents import BadDocument, parse_yaml

_SECONDS: Final = 60
MAX_FILE: Final = 1024 * 1024
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


def read_tree(origin: Origin, task_id: TaskId, definition: Mapping[str, Json], root_url: str) -> Tree:
    """Say what the mirror has of the revision that a decision task names, and what its `.taskcluster.yml` makes.

    It is rendered only where the revision is on a branch that the policy allows: what is not may be anybody's.

    Raises:
        HostError: the mirror cannot be read.
        ServiceError: git took too long.
    """
    refs = _refs(origin)
    if not refs:
        return Tree(missing=f"the mirror has no commit {origin.revision} on any branch; is it up to date?")
    if not any(allowed(origin.repository, ref) for ref in refs):
        return Tree(refs=refs, unrendered="the revision is on no branch that the policy allows")
    try:
        content = _file(origin)
    except LookupError as error:
        return Tree(refs=refs, unrendered=str(error))
    return make_tree(refs, content, origin, task_id, definition, root_url)


def make_tree(
    refs: tuple[str, ...],
    content: bytes,
    origin: Origin,
    task_id: TaskId,
    definition: Mapping[str, Json],
    root_url: str,
) -> Tree:
    """Render the `.taskcluster.yml` of a revision, for a decision task.

    Raises:
        ServiceError: it takes too long.
    """
    try:
        template = parse_yaml(content.decode("utf-8"), ".taskcluster.yml").value
        context = make_context(origin, task_id, definition, root_url)
    except (NoOrigin, BadDocument, UnicodeDecodeError) as error:
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
    """Give `.taskcluster.yml` of a revision: what the revision's own name proves, from hash to hash.

    Git hashes objects when it receives them, and not when it is asked for them: whoever can write to a mirror, or to
    another repository that it borrows objects from (`objects/info/alternates`), could have put others in their place.

    Raises:
        LookupError: the revision has none.
        HostError: an object of the mirror is not what its name says.
    """
    mirror = origin.repository.mirror
    # Its first line is `tree`, a space, and the name of one: git writes no other.
    head, _, _ = _object(mirror, "commit", origin.revision).partition(b"\n")
    mode, blob = _entry(_object(mirror, "tree", head.decode("ascii", "replace").removeprefix("tree ")))
    # A link's content is where it leads; a module and a directory have none.
    if mode not in {b"100644", b"100755"}:
        raise LookupError("it is no file")
    return _object(mirror, "blob", blob)


def _entry(tree: bytes) -> tuple[bytes, str]:
    """Find the file among the entries of a tree: `<mode> <name>`, a zero, 20 bytes of the object's name."""
    at = 0
    while at < len(tree):
        zero = tree.find(b"\0", at)
        mode, _, name = tree[at:zero].partition(b" ")
        at = zero + 21
        if zero < 0 or at > len(tree):
            break
        if name == b".taskcluster.yml":
            return mode, tree[zero + 1 : at].hex()
    raise LookupError("the revision has none")


def _object(mirror: str, kind: str, name: str) -> bytes:
    code, size = _git(mirror, "cat-file", "-s", name)
    most = MAX_FILE if kind == "blob" else _MAX_REFS
    if code == 0 and int(size) > most:
        raise LookupError(f"its {kind} has {int(size)} bytes; {most} are read")
    code, content = _git(mirror, "cat-file", kind, name)
    # SHA-1 is git's own name for it, and what the decision task gives.
    named = hashlib.sha1(b"%b %d\0%b" % (kind.encode(), len(content), content), usedforsecurity=False)
    if code or named.hexdigest() != name:
        raise HostError(f"the {kind} {name} of the mirror {mirror} is not what its name says; make the mirror anew")
    return content


def _git(mirror: str, *words: str) -> tuple[int, bytes]:
    argv = ["/usr/bin/git", "-c", f"safe.directory={mirror}", f"--git-dir={mirror}", *words]
    code, output = _run(argv, b"")
    if len(output) > _MAX_REFS:
        raise HostError(f"git says {len(output)} bytes about the mirror {mirror}; {_MAX_REFS} are read")
    return code, output


def _run(argv: list[str], given: bytes, seconds: float = _SECONDS) -> tuple[int, bytes]:
    try:
        done = subprocess.run(
            argv, input=given, env=_ENVIRONMENT, cwd="/", capture_output=True, timeout=seconds, check=False
        )
    except OSError as error:
        raise HostError(f"{argv[0]} cannot be started: {error.strerror}; install it") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{argv[0]} took more than {seconds:g} s") from error
    return done.returncode, done.stdout


def render(template: Json, context: dict[str, Json], task_id: TaskId, *, seconds: float = _SECONDS) -> tuple[Json, str]:
    """Render in a process of its own, which cannot take more time and memory than it has.

    Returns:
        what it is, or why it could not be rendered.

    Raises:
        HostError: the process cannot be started.
        ServiceError: it was not given `seconds` of time by this host.
    """
    given = json.dumps({"template": template, "context": context, "taskId": task_id}).encode()
    code, output = _run([sys.executable, "-I", "-m", "secureworker.artifacts.rendering"], given, seconds)
    try:
        answer = json.loads(output) if code == 0 else {}
    except ValueError:
        answer = {}
    if "rendered" in answer:
        return answer["rendered"], ""
    return None, str(answer.get("why") or "it takes more time or memory to render than it is given")
