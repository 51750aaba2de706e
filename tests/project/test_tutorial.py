"""The tutorial, typed as it is written."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"(?:`([\w/.]+)`:\n\n)?^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _as_one_script(text: str) -> str:
    """Put the blocks one after the other; a file that the reader saves is written where the text says so."""
    parts = ["set -e\ntrap 'kill %1 2>/dev/null || :' EXIT\n"]
    for path, language, block in BLOCK.findall(text):
        parts.append(block if language == "sh" else f"cat > {path} <<'SAVED'\n{block}SAVED\n")
    return "".join(parts)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.sandbox
def test_the_tutorial_works_as_it_is_written(checkout: Path, tmp_path: Path) -> None:
    # Scripts run as ids of their own, which have to pass on the way to the state directory.
    tmp_path.chmod(0o711)
    shutil.copytree(checkout / "policies", tmp_path / "policies")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    text = (checkout / "docs" / "tutorial.md").read_text().replace("8080", str(_free_port()))
    policy = tmp_path / "policies" / "minimal.yml"
    port = re.search(r"--port (\d+)", text)
    assert port
    policy.write_text(policy.read_text().replace("8080", port[1]))
    text = text.replace("/var/lib/secureworker-tutorial", str(tmp_path / "state"))
    script = _as_one_script(text)

    done = subprocess.run(
        ["bash", "-mc", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "resolved completed" in done.stderr
    assert "resolved malformed-payload" in done.stderr
    assert 'the task\'s schedulerId is "somebody-else"' in done.stdout
    assert done.stdout.count("\nverified\n") == 3  # two runs, and the audit log
    # The release of one's own.
    assert "refused, with exit code 1" in done.stdout
    assert "payload.version" in done.stdout
    assert "demo-1.2.tar.gz: OK\nRelease 1.2\n" in done.stdout
