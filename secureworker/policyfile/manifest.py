"""What a policy consists of, as bytes to be signed."""

import os

from secureworker.core.errors import PolicyError
from secureworker.core.policy import Policy
from secureworker.policyfile.places import Places


def manifest(path: str, policy: Policy) -> bytes:
    """List the policy file and every schema it refers to, with the digests of what was read, in sha256sum's form.

    Args:
        path: the policy file; names are relative to its directory, so that the directory may lie anywhere.
        policy: as it was loaded from there.

    Raises:
        PolicyError: the policy names a trust file of another host, whose digest is not known here.
    """
    if policy.trust_file is not None and policy.trust_file not in policy.files:
        where = policy.trust_file.path
        why = f"trust.file: {where} is the workers' own, so that it is not known here what would be signed"
        raise PolicyError((f"{path}: {why}; put it beside the policy, and name it without a directory",))
    base = os.path.dirname(os.path.abspath(path))
    lines = [f"{policy.sha256}  {os.path.basename(path)}"]
    lines += [f"{file.sha256}  {os.path.relpath(file.path, base)}" for file in policy.files]
    return "".join(f"{line}\n" for line in lines).encode()


def read_signature(path: str, most: int) -> str:
    """Read the signature file beside a policy.

    Raises:
        PolicyError: there is none, or it is too large.
    """
    name = f"{path}.sig"
    try:
        content = Places(os.path.dirname(os.path.abspath(name)), host=False).read(os.path.abspath(name))
        text = content.decode("ascii")
    except ValueError as error:
        raise PolicyError(
            (f"{path}: a signature is required, and {error}; `secureworker policy sign` makes one",)
        ) from error
    if len(text) > most:
        raise PolicyError((f"{name}: this is no policy signature: it has {len(text)} bytes",))
    return text
