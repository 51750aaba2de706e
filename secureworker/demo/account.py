"""What the demonstration says on the terminal. Text from outside is shown as text: no markup, no escape sequences."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

MARKS = {True: ("✔", "green"), False: ("✘", "red")}


class Account:
    """A readable story: headings, lines with times, and a table at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """Begin a numbered part."""
        self._chapters += 1
        self._console.print()
        self._console.print(Text(f"{self._chapters}. {title}", style="bold"), soft_wrap=True)

    def line(self, text: str, style: str = "") -> None:
        """Say something."""
        self._console.print(Text(f"   {_plain(text)}", style=style), soft_wrap=True)

    def event(self, seconds: float, text: str) -> None:
        """Say what happened, `seconds` after the task was created."""
        self._console.print(Text.assemble((f"   {seconds:6.2f} s  ", "dim"), _plain(text)), soft_wrap=True)

    def worker(self, text: str) -> None:
        """Show a line of the worker's own log."""
        self._console.print(Text(f"            │ {_plain(text)}", style="dim"), soft_wrap=True)

    def verdict(self, text: str, *, good: bool) -> None:
        """Say whether something is as it should be."""
        mark, colour = MARKS[good]
        self._console.print(Text.assemble("   ", (mark, colour), f" {_plain(text)}"), soft_wrap=True)

    def table(self, rows: list[tuple[str, str, str, str, bool]]) -> None:
        """Show (task, task id, how it ended, why, whether it should have) of every task."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("task", "task id", "resolved"):
            table.add_column(heading, no_wrap=True)
        table.add_column("why", ratio=1)
        table.add_column("as it should")
        for name, task_id, resolved, why, good in rows:
            mark, colour = MARKS[good]
            table.add_row(_plain(name), task_id, resolved, Text(_plain(why)), Text(mark, style=colour))
        self._console.print()
        self._console.print(table)


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)
