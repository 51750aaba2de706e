"""The system-call filter: the groups of `seccomp.json`, made into what an OCI runtime takes. Pure but for `load`.

The file is for reading: each group says what it is for. What it can say beyond names is `when`, which compares one
argument with a list of values under a mask, and `cases`, which compares several arguments at once.
"""

import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

_ARCHITECTURES = {
    # Only the machine's own: the 32-bit interface of an x86-64 kernel, and x32, have numbers of their own, so that a
    # filter would have to be right three times.
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "riscv64": "SCMP_ARCH_RISCV64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
}
_CLONE_FLAGS_SECOND = frozenset({"s390x"})
"""Where clone takes the stack first and the flags after it (CONFIG_CLONE_BACKWARDS2, clone(2))."""
_ENOSYS = 38  # include/uapi/asm-generic/errno.h


def load() -> Mapping[str, Any]:
    """Read the profile that comes with the package."""
    text = importlib.resources.files("secureworker.sandbox").joinpath("seccomp.json").read_text("utf-8")
    profile: Mapping[str, Any] = json.loads(text)
    return profile


def knows(machine: str) -> bool:
    """Whether there is a filter for `machine`, as `platform.machine()` says it."""
    return machine in _ARCHITECTURES


def oci(profile: Mapping[str, Any], machine: str) -> dict[str, Any]:
    """Give `linux.seccomp` of an OCI config.

    Args:
        profile: as `load` gives it.
        machine: as `platform.machine()` says it.

    Raises:
        KeyError: there is no profile for `machine`.
    """
    calls: list[dict[str, Any]] = []
    for group in profile["groups"]:
        entry: dict[str, Any] = {"names": group["names"], "action": group["action"]}
        if "errno" in group:
            entry["errnoRet"] = group["errno"]
        conditions = _conditions(group)
        if machine in _CLONE_FLAGS_SECOND and group["names"] == ["clone"]:
            # Compared with the stack's address, the flags that make namespaces would all be allowed.
            conditions = [[argument | {"index": 1} for argument in condition] for condition in conditions]
        calls += [entry | {"args": condition} for condition in conditions] if conditions else [entry]
    return {
        # What is not named does not exist, as far as the script can tell: programs have ways around ENOSYS.
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": [_ARCHITECTURES[machine]],
        "syscalls": calls,
    }


def _conditions(group: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Give the alternatives of a group; each a list of comparisons that must all hold."""
    if "when" in group:
        when = group["when"]
        return [[_masked(when["argument"], when["mask"], number)] for number in when["values"].values()]
    return [
        [_masked(argument["argument"], argument["mask"], argument["value"]) for argument in case]
        for case in group.get("cases", ())
    ]


def _masked(index: int, mask: str, value: str) -> dict[str, Any]:
    # SCMP_CMP_MASKED_EQ: (argument & value) == valueTwo. Under a mask of 32 bits, as the kernel takes an int: what a
    # caller puts into the upper half of the register must not make the comparison fail, or succeed.
    return {"index": index, "value": int(mask, 16), "valueTwo": int(value, 16), "op": "SCMP_CMP_MASKED_EQ"}
