"""Write docs/errors.md from where errors are raised: `python scripts/error_reference.py > docs/errors.md`."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from secureworker.core import errors

PACKAGE: Final = Path(errors.__file__).parent.parent
ELSEWHERE: Final = ("localqueue", "testing", "demo")
"""Not of a worker in operation."""
HEAD: Final = """# Errors

Made from the sources by `python scripts/error_reference.py > docs/errors.md`; a test fails when it is stale. Look a
message up by its words: `…` stands for names, paths and numbers, and for what the system itself said. Under each class
stands whose it is to mend, and what the worker does. [The operator's guide](operator-guide.md#when-something-is-wrong)
has the usual ones; [the runbook](runbook.md), incidents.
"""
CLASSES: Final = {
    "SecureworkerError": (
        "All of these. Where a message ends a command, the command ends with the exit code of its class."
    ),
    "TaskError": (
        "The task's author must change something. The run is resolved, its log says why, and the worker goes on."
    ),
    "BadPayload": (
        "The policy, or the script's schema, refuses the task: it is resolved `malformed-payload`. The task's "
        "log lists every reason with the policy's key, so there is no list here; `secureworker explain "
        "--policy FILE TASK` gives the same."
    ),
    "BadArtifact": (
        "An output may not be published: a link, a device, more or larger than the rule says, or of another "
        "name. The task fails, nothing is signed, and its log names the output. [script-authors.md](script- "
        "authors.md) says what is taken."
    ),
    "ServiceError": (
        "A Taskcluster service or the network. Calls are tried again; a run whose inputs or storage stay out "
        "of reach is `resource-unavailable`. At start: exit code 1, and the unit starts the worker again. "
        "Usually nothing is to be done."
    ),
    "AccessDenied": (
        "Credentials are refused. After five times in a row the worker ends with exit code 1. Give it new "
        "ones: replace the file, or look at Taskcluster why they were disabled."
    ),
    "HostError": (
        "The operator's: something on this host. The run that met it is `internal-error`. The worker claims "
        "nothing more until the cause is gone; it looks again by itself, makes the self-test again, and goes "
        "on. At start: exit code 1."
    ),
    "PolicyError": (
        "The operator's, or the policy's author's: one line per problem, `file:line: key: what was found; "
        "what to do`. Exit code 2. `secureworker check` shows the same. On SIGHUP the old policy stays in "
        "force."
    ),
    "SettingsError": (
        "The operator's: options, variables, files of settings, credentials. Exit code 2; no restart helps."
    ),
    "SandboxError": (
        "The operator's: the script did not run, or was stopped. `secureworker doctor` looks at everything "
        "that is needed. Never work around it. At start: exit code 1."
    ),
    "KeyUnusable": ("The operator's: the signing key. Nothing is signed. Exit code 1, of the signer too."),
    "AuditError": (
        "The operator's: the audit log. Nothing is signed and nothing is claimed. Exit code 1. Where it says "
        "*changed*, keep the files and find out who did it: [audit-log.md](audit-log.md#after-a-stop), and "
        "the runbook."
    ),
    "Defect": (
        "This program's own. The run is `internal-error`, the worker goes on, and its log has a traceback: "
        "report it, with the version (`secureworker --version`)."
    ),
    "Stop": (
        "Nobody's fault: the claim was lost, the task was cancelled, a limit was met, or the worker was told "
        "to end. The task's log says which."
    ),
    "SignerLost": (
        "The signer is gone, and with it the key and the audit log. Exit code 1: the unit starts the worker "
        "again, which asks for the signer anew. Look at the signer's own log first: `journalctl --unit "
        "secureworker-signer`."
    ),
    "AuditEnded": (
        "The audit log takes no more until the signer is started anew: its file was changed by another "
        "process, or the clock was set back. Find out which, then restart the signer."
    ),
}
HINTS: Final = {
    "artifacts/": "the disk of the state directory, and the network to storage",
    "artifacts/fetch": "the network to Taskcluster and to storage; whether that task is still there",
    "artifacts/inputs": "the network to Taskcluster and to storage; the disk of the state directory",
    "artifacts/mirror": "the mirror of the repository that the policy names, as the worker's user",
    "audit/": "[audit-log.md](audit-log.md#after-a-stop)",
    "audit/witness": "[audit-log.md](audit-log.md), and who runs the witness",
    "host/": "what the system says; the disk of the state directory",
    "host/private": "owner and mode: the worker's user, 0600, in directories that nobody else can write",
    "host/credentials": 'the file\'s content: `{"clientId": "…", "accessToken": "…"}`',
    "host/userns": "[sandbox.md](sandbox.md#without-root)",
    "host/confine": "how the signer is started: as root, or as its own user",
    "livelog/": "the options `--live-log-…`",
    "operation/": "the option that it names",
    "policyfile/": "the policy, as the line says",
    "queue/": "the network to Taskcluster, and its status; the policy's `root-url`",
    "registration/": "[registering](operator-guide.md#registering-at-worker-manager), "
    "[worker-runner](operator-guide.md#under-worker-runner)",
    "sandbox/": "`secureworker doctor`",
    "sandbox/executable": "the script, and where it is installed",
    "signer": "the signer's settings, and its own log: `journalctl --unit secureworker-signer`",
    "signing/": "the signer's own log: `journalctl --unit secureworker-signer`",
    "signing/keys": "the key's file: `secureworker keys show FILE`, as its user",
    "signing/pkcs11": "token, PIN and module: [audit-log.md](audit-log.md#keys)",
    "signing/vault": "VAULT_ADDR, VAULT_TOKEN and the Vault's own log: [audit-log.md](audit-log.md#keys)",
    "worker/": "the worker's log around it; report it",
    "": "the option or the file that it names",
}
"""Where to look when a message does not say it itself, by the module that raises it; the longest that fits counts."""


def shown(node: ast.expr) -> str:
    """Give a message as far as it is written in the source; `…` for the rest."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(shown(value) for value in values)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return shown(left) + shown(right)
    return "…"


def raised(path: Path) -> Iterator[tuple[str, str]]:
    """Give class and message of each error that a module makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES and node.args:
            message = shown(node.args[0])
            if message.strip("…;: "):
                yield node.func.id, message


def hint(module: str, message: str) -> str:
    """Say what to do: what the message itself says after its last semicolon, or where to look."""
    said, semicolon, advice = message.rpartition("; ")
    if semicolon and said.strip("…") and advice.strip("…"):
        return ""
    return "look at " + max((item for item in HINTS.items() if module.startswith(item[0])), key=lambda i: len(i[0]))[1]


def rows() -> dict[str, set[tuple[str, str]]]:
    """Collect messages and hints by class."""
    found: dict[str, set[tuple[str, str]]] = {name: set() for name in CLASSES}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if not module.startswith(ELSEWHERE):
            for name, message in raised(path):
                do = "look at the task's log, which names it" if name == "BadArtifact" else hint(module, message)
                found[name].add((message, do))
    return found


def cell(text: str) -> str:
    """Keep a text in its cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def page() -> str:
    """Give the whole page."""
    tree = [name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    missing = set(tree) - set(CLASSES)
    if missing:
        raise SystemExit(f"scripts/error_reference.py says nothing of {', '.join(sorted(missing))}")
    parts = [HEAD]
    for name, messages in rows().items():
        parts.append(f"## {name}\n\n{CLASSES[name]}\n")
        if messages:
            lines = [f"| `{cell(text)}` | {cell(do) or 'as it says'} |" for text, do in sorted(messages)]
            parts.append("\n".join(["| it says | do |", "|---|---|", *lines]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
