"""The command line answers at once: what a command does not need, it does not import."""

import os
import subprocess
import sys

# Measured on import, warm: aiohttp 150 ms, taskcluster 200, jsonschema 60, cryptography 40, rich 50.
HEAVY = {"aiohttp", "arrow", "cryptography", "jsone", "jsonschema", "rich", "ruamel", "sqlite3", "taskcluster"}


def test_help_imports_nothing_heavy() -> None:
    # Measuring coverage imports much by itself.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "secureworker", "--help"],
        env=plain,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert imported & HEAVY == set()
