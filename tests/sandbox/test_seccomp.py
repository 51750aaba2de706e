"""The filter as data. That it holds is shown in tests/escapes."""

import pytest

from secureworker.sandbox import seccomp

PROFILE = seccomp.load()


def names(action: str) -> set[str]:
    return {name for group in PROFILE["groups"] if group["action"] == action for name in group["names"]}


def test_every_group_says_why_and_names_no_call_that_another_names() -> None:
    every = [name for group in PROFILE["groups"] for name in group["names"]]
    assert len(every) == len(set(every))
    assert all(group["why"] for group in PROFILE["groups"])


def test_about_290_names_are_allowed() -> None:
    assert 270 <= len(names("SCMP_ACT_ALLOW")) <= 300


@pytest.mark.parametrize(
    "name",
    ["clone3", "unshare", "setns", "mount", "ptrace", "keyctl", "bpf", "userfaultfd", "io_uring_setup", "kexec_load"],
)
def test_a_dangerous_call_is_not_allowed(name: str) -> None:
    assert name not in names("SCMP_ACT_ALLOW")


def test_what_is_refused_on_purpose_gets_eperm_and_the_rest_enosys() -> None:
    made = seccomp.oci(PROFILE, "x86_64")
    assert (made["defaultAction"], made["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    refused = [entry for entry in made["syscalls"] if entry["action"] == "SCMP_ACT_ERRNO"]
    assert refused
    assert all(entry["errnoRet"] == 1 for entry in refused)


def test_only_the_machines_own_architecture_is_allowed() -> None:
    assert seccomp.oci(PROFILE, "x86_64")["architectures"] == ["SCMP_ARCH_X86_64"]
    assert seccomp.oci(PROFILE, "aarch64")["architectures"] == ["SCMP_ARCH_AARCH64"]
    assert seccomp.knows("riscv64")
    assert not seccomp.knows("i686")
    with pytest.raises(KeyError):
        seccomp.oci(PROFILE, "i686")


def test_comparisons_are_under_a_mask_and_one_per_alternative() -> None:
    made = seccomp.oci(PROFILE, "x86_64")
    requests = [entry["args"] for entry in made["syscalls"] if entry["names"] == ["ioctl"]]
    assert [{"index": 1, "value": 0xFFFFFFFF, "valueTwo": 0x5401, "op": "SCMP_CMP_MASKED_EQ"}] in requests
    assert all(len(alternative) == 1 for alternative in requests)
    families = {entry["args"][0]["valueTwo"] for entry in made["syscalls"] if entry["names"] == ["socket"]}
    assert families == {1, 2, 10, 16}
    (clone,) = [entry["args"] for entry in made["syscalls"] if entry["names"] == ["clone"]]
    assert clone == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]


def test_where_clone_takes_its_flags_second_the_second_argument_is_looked_at() -> None:
    made = seccomp.oci(PROFILE, "s390x")
    (clone,) = [entry["args"] for entry in made["syscalls"] if entry["names"] == ["clone"]]
    assert clone == [{"index": 1, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
