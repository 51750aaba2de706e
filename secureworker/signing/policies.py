"""Detached signatures of policies: a reviewer signs, the worker checks.

What is signed is a manifest: the digests of the policy file and of every schema that it refers to. (Scripts are pinned
in the policy itself.) It begins with words that begin nothing else that is signed here, so that no signature made for
another purpose passes for one of a policy, nor the other way round.
"""

import base64
import binascii
from typing import Final

from secureworker.core.errors import PolicyError
from secureworker.signing.publickeys import Key, PublicKey

_PURPOSE: Final = b"secureworker policy v1\n"
_HEADER: Final = "secureworker policy signature v1"
MAX_BYTES: Final = 4096
"""No signature file is larger."""


def sign_policy(manifest: bytes, key: Key) -> str:
    """Give the text of the signature file."""
    signature = base64.b64encode(key.sign(_PURPOSE + manifest)).decode()
    return f"{_HEADER}\nkey {key.public.fingerprint}\nsignature {signature}\n"


def check_policy(path: str, text: str, manifest: bytes, key: PublicKey) -> None:
    """Check a signature file.

    Args:
        path: the policy, for messages.
        text: content of the signature file.
        manifest: of the policy as it was read.
        key: the reviewers' key.

    Raises:
        PolicyError: it is no signature of this policy by this key.
    """
    lines = text.splitlines()
    # 1. The file is a signature, and says by which key.
    words = [line.partition(" ")[2] for line in lines]
    if len(lines) != 3 or [lines[0], *(line.partition(" ")[0] for line in lines[1:])] != [_HEADER, "key", "signature"]:  # noqa: PLR2004 - header, key, signature
        raise PolicyError((f"{path}.sig: this is no policy signature; make one with `secureworker policy sign`",))
    # 2. It is the key that this worker was told to trust.
    if words[1] != key.fingerprint:
        other = f"signed by {words[1][:80]!r}; the key that was given is {key.fingerprint}"
        raise PolicyError((f"{path}.sig: {other}, and only its signature counts",))
    # 3. The key signed exactly this policy, and these schemas.
    try:
        signature = base64.b64decode(words[2], validate=True)
    except binascii.Error as error:
        raise PolicyError((f"{path}.sig: the signature is no base64",)) from error
    if not key.verifies(signature, _PURPOSE + manifest):
        what = "the policy or a schema it refers to is not what was signed"
        raise PolicyError((f"{path}: {what}; review the change, and sign it again",))
