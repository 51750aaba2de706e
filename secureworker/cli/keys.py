"""`secureworker keys`: make signing keys, show the public half of one, and give public keys to others."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from secureworker.signing.publickeys import PublicKey


@click.group("keys")
def command() -> None:
    """Make signing keys; show and pass on their public halves."""


@command.command("new")
@click.argument("path", type=click.Path(dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def new(path: str, *, as_json: bool) -> None:
    r"""Make an Ed25519 key in PATH (mode 0400), and its public half in PATH.pub. Existing files are left alone.

    Run it as the user that the worker runs as: no other may own the key.

    \b
    Example:
      secureworker keys new /etc/secureworker/signing.key
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
    r"""Show the public half of the key in PATH, which is a private key as the worker would take it, or PATH.pub.

    \b
    Example:
      secureworker keys show /etc/secureworker/signing.key.pub
    """
    from secureworker.core.errors import KeyUnusable
    from secureworker.signing.keys import load_signing_key
    from secureworker.signing.publickeys import read_public_key

    try:
        if path.endswith(".pub"):
            public = read_public_key(path)
        else:
            public = load_signing_key(f"file:{Path(path).absolute()}").public
    except (KeyUnusable, ValueError) as error:
        raise click.ClickException(str(error)) from error
    _show(path, public, as_json=as_json)


@command.command("trust")
@click.argument("keys", nargs=-1, required=True, metavar="PUB...")
@click.option("--worker-pool", required=True, metavar="POOL", help="Whose keys they are: provisioner/worker-type.")
@click.option("--root-url", default="", metavar="URL", help="The deployment that the pool is of.")
@click.option(
    "--implementation",
    type=click.Choice(["secureworker", "scriptworker", "generic-worker", "docker-worker"]),
    default="secureworker",
    show_default=True,
    help="Which worker the pool runs.",
)
def trust(keys: tuple[str, ...], worker_pool: str, root_url: str, implementation: str) -> None:
    r"""Print a trust file in which the public keys PUB are a pool's active ones, to be kept under review from then on.

    PUB is a public key, or a file that holds it.

    \b
    Example:
      secureworker keys trust signing.key.pub --worker-pool releng-hardened/release --root-url https://tc.example.com
    """
    from secureworker.core.ids import WorkerPool
    from secureworker.core.keylists import new_trust_file
    from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
    from secureworker.signing.publickeys import read_public_key

    try:
        pool = WorkerPool.parse(worker_pool)
        listed = tuple(TrustKey(read_public_key(key).raw) for key in keys)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(new_trust_file(Trust((TrustPool(pool, Implementation(implementation), listed),), root_url)), nl=False)


@command.command("export")
@click.argument("trust_file", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--form",
    required=True,
    type=click.Choice(["scriptworker", "pem", "allowed-signers", "sigstore-keys", "trusted-root"]),
    help="For whom: see docs/verifying.md.",
)
@click.option("--worker-pool", metavar="POOL", help="Only this pool's keys.")
@click.option("--log-origin", "origins", multiple=True, metavar="NAME", help="For trusted-root: name of an audit log.")
def export(trust_file: str, form: str, worker_pool: str | None, origins: tuple[str, ...]) -> None:
    r"""Print the keys of a trust file in the form of another verifier.

    Forms that know no days of validity get active and next keys; the others retired ones too. Revoked keys are in none.

    \b
    Example:
      secureworker keys export trust.yml --form scriptworker
    """
    from secureworker.core import keylists
    from secureworker.core.errors import SettingsError
    from secureworker.core.ids import WorkerPool
    from secureworker.host.trustfile import load_trust

    try:
        trusted = load_trust(trust_file)
        pool = None if worker_pool is None else WorkerPool.parse(worker_pool)
        if pool is not None and trusted.pool(pool) is None:
            raise ValueError(f"{trust_file} has no worker pool {pool}")
    except (ValueError, SettingsError) as error:
        raise click.UsageError(str(error)) from error
    forms = {
        "scriptworker": keylists.scriptworker,
        "pem": keylists.pem,
        "allowed-signers": keylists.allowed_signers,
        "sigstore-keys": keylists.sigstore_keys,
    }
    if form == "trusted-root":
        click.echo(keylists.trusted_root(trusted, origins, pool), nl=False)
        return
    click.echo(forms[form](trusted, pool), nl=False)


def _show(path: str, public: "PublicKey", *, as_json: bool) -> None:
    if as_json:
        forms = {"base64": public.base64, "pem": public.pem, "openssh": public.openssh}
        click.echo(json.dumps({"path": path, "fingerprint": public.fingerprint, **forms}, indent=2))
        return
    click.echo(f"fingerprint  {public.fingerprint}")
    click.echo(f"base64       {public.base64}")
    click.echo(f"openssh      {public.openssh}")
    click.echo(public.pem, nl=False)
