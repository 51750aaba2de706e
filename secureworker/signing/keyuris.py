"""Where a signing key lies: `file:`, `credential:`, `pkcs11:` or `hv:`, and nothing else."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from secureworker.core.errors import KeyUnusable
from secureworker.signing.publickeys import Key

SCHEMES: Final = ("file", "credential", "pkcs11", "hv")
OVER_NETWORK: Final = frozenset({"hv"})
"""Keys that are asked to sign over the network: their signer keeps it."""
_WITHOUT_ED25519: Final = frozenset({"awskms", "gcpkms", "azurekms"})


def scheme_of(uri: str) -> str:
    """Give the scheme of a key URI.

    Raises:
        KeyUnusable: it is none that is known here.
    """
    scheme, colon, _ = uri.partition(":")
    if scheme in _WITHOUT_ED25519:
        # As of securesystemslib 1.6: ECDSA, RSA and ML-DSA there. The chain of trust's format has Ed25519 only, and one
        # key signs both statements and the log.
        raise KeyUnusable(
            f"{scheme}: is a key service for which securesystemslib has no Ed25519, and everything here is signed with "
            "Ed25519; keep the key in a token (pkcs11:), or in a Vault (hv:NAME/VERSION)"
        )
    if not colon or scheme not in SCHEMES:
        raise KeyUnusable(
            f"{scheme[:20]!r} is no scheme of a key URI: file:/path/to/key, credential:NAME "
            "pkcs11:token=…;object=… or hv:NAME/VERSION is expected"
        )
    return scheme


def import_for(uri: str) -> None:
    """Import what reading the key takes: who becomes another user first may not be able to afterwards.

    Raises:
        KeyUnusable: the URI has no scheme that is known here.
    """
    # Of every scheme: signatures that others make are verified with what our own keys are made of.
    from secureworker.signing import keys  # noqa: F401 - imported for its own sake, as the others

    match scheme_of(uri):
        case "pkcs11":
            from secureworker.signing import pkcs11  # noqa: F401
        case "hv":
            from secureworker.signing import vault  # noqa: F401
        case _:
            pass


def load_key(uri: str, environ: Mapping[str, str] = os.environ) -> Key:
    """Read, or open, the private key that a URI names.

    What each scheme takes is imported with it: some are extras, and a worker only looks at URIs.

    Raises:
        KeyUnusable: there is none, others can reach it, or it is no Ed25519 key. No message holds a part of it.
    """
    match scheme_of(uri):
        case "file":
            from secureworker.signing.keys import load_signing_key

            return load_signing_key(uri)
        case "credential":
            from secureworker.signing.keys import load_credential_key

            return load_credential_key(_credential(uri, environ))
        case "pkcs11":
            from secureworker.signing import pkcs11

            return pkcs11.open_key(uri)
        case _:
            from secureworker.signing import vault

            return vault.open_key(uri, environ)


def _credential(uri: str, environ: Mapping[str, str]) -> str:
    """Find what systemd's `LoadCredential=` put there for this unit alone (systemd.exec(5))."""
    name = uri.partition(":")[2]
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        raise KeyUnusable(
            f"{uri} names a credential, and there is no $CREDENTIALS_DIRECTORY; "
            "start the signer by systemd, with LoadCredential="
        )
    if not name or name in {".", ".."} or "/" in name:
        raise KeyUnusable(f"{name[:40]!r} is no name of a credential: letters, digits, '.', '-' and '_' are expected")
    return str(Path(directory) / name)


def files_of(uri: str, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Give the paths of the files that hold a key: what no script may reach.

    Raises:
        KeyUnusable: the URI is none.
    """
    match scheme_of(uri):
        case "file":
            return (uri.removeprefix("file:").removeprefix("//"),)
        case "credential":
            return (_credential(uri, environ),)
        case "hv":
            return ()
        case _:
            from secureworker.signing.pkcs11 import parse_uri

            return (parse_uri(uri).pin_file,)
