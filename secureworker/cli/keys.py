"""`secureworker keys`: make signing keys, and show the public half of one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from secureworker.signing.keys import PublicKey


@click.group("keys")
def command() -> None:
    """Make a signing key, or show its public half."""


@command.command("new")
@click.argument("path", type=click.Path(dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def new(path: str, *, as_json: bool) -> None:
    """Make an Ed25519 key in PATH (mode 0400), and its public half in PATH.pub. Existing files are left alone.

    Run it as the user that the worker runs as: no other may own the key.
    """
    # Here and not above: `--help` of the whole program must not load cryptography.
    from secureworker.signing.keys import create_signing_key

    try:
        made = create_signing_key(path)
    except FileExistsError as error:
        raise click.ClickException(f"{error.filename} exists already; keys are never overwritten") from error
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    _show(path, made.public, as_json=as_json)


@command.command("show")
@click.argument("path", type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(path: str, *, as_json: bool) -> None:
    """Show the public half of the key in PATH, which is a private key as the worker would take it, or PATH.pub."""
    from secureworker.core.errors import KeyUnusable
    from secureworker.signing.keys import load_signing_key, read_public_key

    try:
        if path.endswith(".pub"):
            public = read_public_key(path)
        else:
            public = load_signing_key(f"file:{Path(path).absolute()}").public
    except (KeyUnusable, ValueError) as error:
        raise click.ClickException(str(error)) from error
    _show(path, public, as_json=as_json)


def _show(path: str, public: "PublicKey", *, as_json: bool) -> None:
    if as_json:
        forms = {"base64": public.base64, "pem": public.pem, "openssh": public.openssh}
        click.echo(json.dumps({"path": path, "fingerprint": public.fingerprint, **forms}, indent=2))
        return
    click.echo(f"fingerprint  {public.fingerprint}")
    click.echo(f"base64       {public.base64}")
    click.echo(f"openssh      {public.openssh}")
    click.echo(public.pem, nl=False)
