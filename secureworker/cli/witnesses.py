"""Options that several commands have: the key of a witness."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from secureworker.core.witness import WitnessKey

_MAX_BYTES = 4096


def witness_key(given: str) -> "WitnessKey":
    """Read a witness' key, given as itself or as a file that holds it.

    Raises:
        click.UsageError: it is neither.
    """
    from secureworker.core.witness import parse_vkey
    from secureworker.signing.publickeys import PublicKey

    try:
        text = given
        if "+" not in given:
            with Path(given).open(encoding="utf-8") as file:
                text = file.read(_MAX_BYTES)
        return parse_vkey(text, lambda raw: PublicKey(raw).verifies)
    except (ValueError, OSError) as error:
        raise click.UsageError(f"--witness {given[:60]}: {error}") from error
