"""docs/cli.md is what `--help` says."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_reference_of_commands_is_current(checkout: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SECUREWORKER_")}
    made = subprocess.run(
        [sys.executable, "scripts/cli_reference.py"],
        cwd=checkout,
        env=plain,
        capture_output=True,
        text=True,
        check=True,
    )

    assert (checkout / "docs" / "cli.md").read_text() == made.stdout, (
        "run `python scripts/cli_reference.py > docs/cli.md`"
    )


def test_no_help_shows_what_was_meant_for_its_formatter(checkout: Path) -> None:
    assert "\\b" not in (checkout / "docs" / "cli.md").read_text()
