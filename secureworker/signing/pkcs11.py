"""Ed25519 keys in a token (PKCS#11): the key stays in the device, and signs there. Needs the extra `pkcs11`.

`pkcs11:token=NAME;object=LABEL?module-path=/path/to/module.so&pin-source=file:/path` (RFC 7512).
"""

import threading
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from secureworker.core.errors import KeyUnusable
from secureworker.signing.keys import read_secret
from secureworker.signing.publickeys import KEY_BYTES, PublicKey

_SIGNATURE_BYTES: Final = 64
_TRIAL: Final = b"secureworker: is this key the one that its public half says?\n"


@dataclass(frozen=True, slots=True)
class TokenUri:
    """What a `pkcs11:` URI says."""

    token: str
    label: str
    module: str
    pin_file: str


def parse_uri(uri: str) -> TokenUri:
    """Read a URI; each of the four parts is needed, and nothing else is taken.

    Raises:
        KeyUnusable: it has another form.
    """
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    said: dict[str, str] = {}
    for part in (*path.split(";"), *query.split("&")):
        name, _, value = part.partition("=")
        if name not in {"token", "object", "module-path", "pin-source"} or name in said or not value:
            raise KeyUnusable(f"{name[:40]!r} in the key URI is unknown, empty or there twice; {_EXPECTED}")
        said[name] = unquote(value)
    pin = said.get("pin-source", "")
    if len(said) != 4 or not pin.startswith("file:/") or not said["module-path"].startswith("/"):  # noqa: PLR2004 - all
        raise KeyUnusable(f"the key URI lacks a part, or a path in it is not absolute; {_EXPECTED}")
    return TokenUri(said["token"], said["object"], said["module-path"], pin.removeprefix("file:").removeprefix("//"))


_EXPECTED: Final = "pkcs11:token=NAME;object=LABEL?module-path=/module.so&pin-source=file:/path is expected"


class TokenKey:
    """A private key that is in a token. Safe to use from threads."""

    def __init__(self, session: Any, key: Any, public: PublicKey, mechanism: Any) -> None:
        self._session = session
        self._key = key
        self._mechanism = mechanism
        self._lock = threading.Lock()
        self.public = public

    def sign(self, message: bytes) -> bytes:
        """Have the token sign.

        Raises:
            KeyUnusable: the token does not, or what it gives is no signature by this key.
        """
        import pkcs11.exceptions  # noqa: PLC0415 - an extra

        with self._lock:
            try:
                signature = bytes(self._key.sign(message, mechanism=self._mechanism))
            except pkcs11.exceptions.PKCS11Error as error:
                raise KeyUnusable(f"the token does not sign: {type(error).__name__}") from error
        # A device that fails while it computes could give the key away with a wrong signature, too.
        if len(signature) != _SIGNATURE_BYTES or not self.public.verifies(signature, message):
            raise KeyUnusable("what the token gave is no Ed25519 signature by its key")
        return signature

    def __repr__(self) -> str:
        return f"TokenKey({self.public.fingerprint})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key in a token is not pickled")


def open_key(uri: str) -> TokenKey:
    """Log in to a token, and find the key.

    Raises:
        KeyUnusable: there is no such token or key, it is of another kind, or the extra is not installed.
    """
    where = parse_uri(uri)
    try:
        import pkcs11  # noqa: PLC0415 - an extra
        import pkcs11.exceptions  # noqa: PLC0415 - the same
    except ImportError as error:
        raise KeyUnusable("keys in tokens need python-pkcs11; install secureworker[pkcs11]") from error
    pin = read_secret(where.pin_file, "the PIN").decode("utf-8", "strict").strip()
    try:
        session = pkcs11.lib(where.module).get_token(token_label=where.token).open(user_pin=pin)
        private = session.get_key(
            object_class=pkcs11.ObjectClass.PRIVATE_KEY, key_type=pkcs11.KeyType.EC_EDWARDS, label=where.label
        )
        public = session.get_key(
            object_class=pkcs11.ObjectClass.PUBLIC_KEY, key_type=pkcs11.KeyType.EC_EDWARDS, label=where.label
        )
        key = TokenKey(session, private, public_of(bytes(public[pkcs11.Attribute.EC_POINT])), pkcs11.Mechanism.EDDSA)
    except (pkcs11.exceptions.PKCS11Error, RuntimeError) as error:
        # The type only: a module's messages are its own.
        raise KeyUnusable(
            f"the key {where.label!r} of the token {where.token!r} cannot be used: {type(error).__name__}; "
            "is the token there, the PIN right, and the key an Ed25519 pair under that one label?"
        ) from error
    key.sign(_TRIAL)
    return key


def public_of(point: bytes) -> PublicKey:
    """Read CKA_EC_POINT: the 32 bytes, or an OCTET STRING around them, as PKCS#11 3.0 and 2.40 have it."""
    if len(point) == KEY_BYTES + 2 and point[:2] == bytes([4, KEY_BYTES]):
        point = point[2:]
    try:
        return PublicKey(point)
    except ValueError as error:
        raise KeyUnusable(f"the token's public key is no Ed25519 key: {error}") from error
