"""docs/secureworker.1 is what the program's own help says, and a page that formatters understand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from secureworker.cli.main import SUMMARIES


def test_the_manual_page_is_current(checkout: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SECUREWORKER_")}
    made = subprocess.run(
        [sys.executable, "scripts/man_page.py"], cwd=checkout, env=plain, capture_output=True, text=True, check=True
    )

    assert (checkout / "docs" / "secureworker.1").read_text() == made.stdout, (
        "run `python scripts/man_page.py > docs/secureworker.1`"
    )


def test_the_manual_page_has_every_command(checkout: Path) -> None:
    page = (checkout / "docs" / "secureworker.1").read_text().replace("\\-", "-")

    assert [name for name in SUMMARIES if f"\n.SS {name}\n" not in page] == []


def test_no_line_of_the_manual_page_is_taken_for_an_instruction_that_it_is_not(checkout: Path) -> None:
    known = ("TH", "SH", "SS", "TP", "PP", "B", "I", "BR", "RI", "IR", "br", "nf", "fi", '\\"')
    lines = (checkout / "docs" / "secureworker.1").read_text().splitlines()

    assert [line for line in lines if line.startswith("'") or "\b" in line] == []
    assert [line for line in lines if line.startswith(".") and line[1:].partition(" ")[0] not in known] == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff: the package groff-base")
def test_a_formatter_has_nothing_to_complain_of(checkout: Path) -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", checkout / "docs" / "secureworker.1"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""
