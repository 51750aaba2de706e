"""Ed25519 keys in a Vault: HashiCorp Vault's transit engine, or OpenBao's. They stay there. Needs the extra `vault`.

`hv:NAME/VERSION`, as securesystemslib writes it. Where the Vault is, and who we are to it, says the environment, as for
Vault's own programs: VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY.

Only Vault of the key services that securesystemslib knows: the others' signers have no Ed25519, and everything that is
signed here is Ed25519 (`keyuris` says so to who asks for one).
"""

import base64
import io
import ipaddress
import re
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from secureworker.core.errors import KeyUnusable
from secureworker.signing.publickeys import PublicKey

_URI = re.compile(r"hv:([A-Za-z0-9][A-Za-z0-9_.-]{0,99})/([1-9][0-9]{0,8})")
_SIGNATURE_BYTES: Final = 64
_TRIAL: Final = b"secureworker: is this key the one that its public half says?\n"
TIMEOUT_SECONDS: Final = 10.0
"""To connect, and without a byte. Each record of the audit log waits for one signature."""
_MAX_ANSWER_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 16


def parse_uri(uri: str) -> tuple[str, int]:
    """Give a key's name and version.

    Raises:
        KeyUnusable: the URI has another form. A key without a version would be another one after its next rotation.
    """
    named = _URI.fullmatch(uri)
    if named is None:
        raise KeyUnusable(f"the key URI {uri[:60]!r} has another form: hv:NAME/VERSION is expected")
    return named[1], int(named[2])


def _address(environ: Mapping[str, str]) -> str:
    address = environ.get("VAULT_ADDR", "")
    parts = urlsplit(address)
    if not parts.hostname:
        raise KeyUnusable(
            "a key in a Vault needs VAULT_ADDR in the signer's environment: https://vault.example.com:8200"
        )
    if parts.scheme != "https" and not _is_loopback(parts.hostname):
        raise KeyUnusable(f"VAULT_ADDR names {parts.hostname} without TLS; who listens has the token: write https://")
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class VaultKey:
    """A private key that is in a Vault. Safe to use from threads."""

    def __init__(self, signer: Any, public: PublicKey) -> None:
        self._signer = signer
        self._lock = threading.Lock()
        self.public = public

    def sign(self, message: bytes) -> bytes:
        """Have the Vault sign.

        Raises:
            KeyUnusable: it does not, in time, or what it gives is no signature by this key. It may, later.
        """
        with self._lock:
            try:
                signature = bytes.fromhex(self._signer.sign(message).signature)
            except Exception as error:
                raise KeyUnusable(f"the Vault does not sign: {type(error).__name__}") from error
        # What is not by this very key and version would be found by everybody who verifies, and by nobody here.
        if len(signature) != _SIGNATURE_BYTES or not self.public.verifies(signature, message):
            raise KeyUnusable("what the Vault gave is no Ed25519 signature by its key")
        return signature

    def __repr__(self) -> str:
        return f"VaultKey({self.public.fingerprint})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key in a Vault is not pickled")


def open_key(uri: str, environ: Mapping[str, str], *, seconds: float = TIMEOUT_SECONDS) -> VaultKey:
    """Find the key, and see that it signs.

    Raises:
        KeyUnusable: the Vault cannot be asked, has no such key or none of this kind, or the extra is not installed.
    """
    name, version = parse_uri(uri)
    address = _address(environ)
    try:
        import hvac  # noqa: PLC0415 - an extra
        from securesystemslib.signer import SSlibKey, VaultSigner  # type: ignore[attr-defined]  # noqa: PLC0415 - the same
    except ImportError as error:
        raise KeyUnusable("keys in a Vault need hvac and securesystemslib; install secureworker[vault]") from error

    class Signer(VaultSigner):
        """Uses our client: its own follows redirects with the token, and waits for half a minute."""

        def __init__(self, public: Any, client: Any) -> None:
            super().__init__(name, public, version)
            self._client = client

    client = hvac.Client(
        url=address,
        # Not ~/.vault-token, which is some person's.
        token=environ.get("VAULT_TOKEN", ""),
        namespace=environ.get("VAULT_NAMESPACE"),
        timeout=seconds,
        allow_redirects=False,
        session=_session(),
    )
    try:
        told = client.secrets.transit.read_key(name)["data"]
        if told["type"] != "ed25519" or told.get("derived"):
            raise KeyUnusable(f"the key {name} of the Vault is {told['type']!r:.40}, and an Ed25519 key is needed")
        raw = base64.b64decode(told["keys"][str(version)]["public_key"], validate=True)
        public = PublicKey(raw)
    except KeyUnusable:
        raise
    except Exception as error:
        # The type only: the library's messages hold addresses, and answers.
        raise KeyUnusable(
            f"version {version} of the key {name} cannot be read from the Vault: {type(error).__name__}; is VAULT_ADDR "
            "right, may the token read transit/keys and update transit/sign, and is there such a key and version?"
        ) from error
    key = VaultKey(Signer(SSlibKey("", "ed25519", "ed25519", {"public": raw.hex()}), client), public)
    key.sign(_TRIAL)
    return key


def _session() -> Any:
    """Make a session of requests' that takes no more than an answer of a Vault's has."""
    import requests  # noqa: PLC0415 - an extra

    class Session(requests.Session):
        def request(self, *arguments: Any, **options: Any) -> requests.Response:
            response = super().request(*arguments, **{**options, "stream": True})
            taken = bytearray()
            with response:
                for piece in response.iter_content(_PIECE_BYTES):
                    taken += piece
                    if len(taken) > _MAX_ANSWER_BYTES:
                        raise requests.exceptions.ContentDecodingError("an answer too large for a Vault's")
            # What was taken is the answer: a new one, so that nothing private of the old need be set.
            answer = requests.Response()
            answer.status_code, answer.headers, answer.url = response.status_code, response.headers, response.url
            answer.headers.pop("Content-Encoding", None)
            answer.raw = io.BytesIO(bytes(taken))
            return answer

    session = Session()
    # No proxy of the environment's, and no netrc: what goes to the Vault goes to the Vault.
    session.trust_env = False
    return session
