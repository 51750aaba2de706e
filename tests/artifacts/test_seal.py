"""Outputs are taken out of a script's reach, or refused with every reason."""

import hashlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from secureworker.artifacts.seal import SealedOutputs, copy_all
from secureworker.artifacts.spool import Changed, copy_hashed
from secureworker.artifacts.walk import MAX_DEPTH, Offences, find_outputs
from secureworker.core.errors import BadArtifact, HostError
from secureworker.core.plan import OutputRules
from secureworker.host.threads import Abandoned
from secureworker.ports import Artifact, Workspace
from secureworker.testing import EPOCH, FakeClock

MIB = 2**20
RULES = OutputRules(("**",), max_size=64 * MIB, max_total=128 * MIB, max_count=100)
EXPIRES = EPOCH + timedelta(days=400)


async def seal(workspace: Workspace, rules: OutputRules = RULES) -> tuple[Artifact, ...]:
    return await SealedOutputs(FakeClock()).seal(rules, workspace, EXPIRES)


async def refusal(workspace: Workspace, rules: OutputRules = RULES) -> BadArtifact:
    with pytest.raises(BadArtifact) as caught:
        await seal(workspace, rules)
    assert os.listdir(workspace.spool) == []
    return caught.value


async def test_outputs_are_copied_measured_and_named_in_ascending_order(workspace: Workspace, outputs: Path) -> None:
    (outputs / "public" / "z.txt").write_bytes(b"last")
    (outputs / "public" / "build").mkdir()
    (outputs / "public" / "build" / "a.tar.gz").write_bytes(b"first")
    (outputs / "private.json").write_bytes(b"{}")

    artifacts = await seal(workspace)

    assert [artifact.name for artifact in artifacts] == ["private.json", "public/build/a.tar.gz", "public/z.txt"]
    assert [artifact.content_type for artifact in artifacts] == ["application/json", "application/x-tar", "text/plain"]
    for artifact in artifacts:
        copied = Path(artifact.path).read_bytes()
        assert copied == (outputs / artifact.name).read_bytes()
        assert (artifact.size, artifact.sha256) == (len(copied), hashlib.sha256(copied).hexdigest())
        assert Path(artifact.path).parent == Path(workspace.spool)
        assert Path(artifact.path).stat().st_mode & 0o777 == 0o600
        assert artifact.expires == EXPIRES


async def test_a_script_without_outputs_has_none(workspace: Workspace) -> None:
    assert await seal(workspace) == ()


async def test_a_removed_artifact_directory_holds_no_outputs(workspace: Workspace, outputs: Path) -> None:
    outputs.rename(outputs.parent / "elsewhere")

    assert await seal(workspace) == ()


async def test_an_empty_file_is_an_output(workspace: Workspace, outputs: Path) -> None:
    (outputs / "empty").touch()

    (artifact,) = await seal(workspace)

    assert (artifact.size, artifact.sha256) == (0, hashlib.sha256().hexdigest())


async def test_changing_the_original_after_sealing_changes_nothing(workspace: Workspace, outputs: Path) -> None:
    (outputs / "a").write_bytes(b"good")

    (artifact,) = await seal(workspace)
    (outputs / "a").write_bytes(b"evil")

    assert Path(artifact.path).read_bytes() == b"good"


@pytest.mark.parametrize("size", [4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 11 * MIB + 17])
async def test_a_file_around_the_buffers_size_is_copied_whole(workspace: Workspace, outputs: Path, size: int) -> None:
    content = os.urandom(size)
    (outputs / "large").write_bytes(content)

    (artifact,) = await seal(workspace)

    assert artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert Path(artifact.path).read_bytes() == content


async def test_a_rule_may_let_outputs_expire_before_the_task_but_not_after(workspace: Workspace, outputs: Path) -> None:
    (outputs / "a").touch()

    (early,) = await seal(workspace, replace(RULES, expires=timedelta(days=1)))
    for copied in Path(workspace.spool).iterdir():
        copied.unlink()
    (late,) = await seal(workspace, replace(RULES, expires=timedelta(days=1000)))

    assert timedelta(days=1) <= early.expires - EPOCH < timedelta(days=30)
    assert early.expires.microsecond % 1000 == 0
    assert late.expires == EXPIRES


def a_symlink_to_a_file(path: Path) -> None:
    (path.parent / "target").write_bytes(b"target")
    path.symlink_to("target")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_the_key(path: Path) -> None:
    path.symlink_to("/etc/shadow")


def a_linked_directory(path: Path) -> None:
    path.symlink_to("/etc")


def a_hard_link(path: Path) -> None:
    host_file = path.parent.parent.parent.parent / "host-file"
    host_file.write_bytes(b"the host's")
    path.hardlink_to(host_file)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        directory = os.open(path.parent, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (a_symlink_to_a_file, "is a symlink"),
        (a_dangling_link, "is a symlink"),
        (a_link_to_the_key, "is a symlink"),
        (a_linked_directory, "is a symlink"),
        (a_hard_link, "hard link"),
        (os.mkfifo, "is a FIFO"),
        (a_socket, "is a socket"),
    ],
)
async def test_what_is_no_plain_file_is_refused_and_nothing_is_copied(
    workspace: Workspace, outputs: Path, make: Callable[[Path], None], why: str
) -> None:
    make(outputs / "public" / "bad")

    error = await refusal(workspace)

    assert why in str(error)
    assert error.names == ("public/bad",)
    assert str(workspace.task) not in str(error)


@pytest.mark.sandbox
async def test_a_device_is_refused_without_being_opened(workspace: Workspace, outputs: Path) -> None:
    os.mknod(outputs / "zero", 0o20666, os.makedev(1, 5))
    os.mknod(outputs / "disk", 0o60666, os.makedev(7, 0))

    error = await refusal(workspace)

    assert "'zero' is a character device" in str(error)
    assert "'disk' is a block device" in str(error)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (b"line\nfeed", "printable ASCII"),
        ("e\u0301.txt".encode(), "printable ASCII"),
        ("\u00e9.txt".encode(), "printable ASCII"),
        (b"\xff\xfe", "printable ASCII"),
        (b"\x1b[31mred", "printable ASCII"),
        (b"public/chain-of-trust.json", "only the worker"),
        (b"public/chain-of-trust.json.sig", "only the worker"),
        (b"public/chain-of-trust.json/below", "only the worker"),
        (b"public/provenance.sigstore.json", "only the worker"),
        (b"public/provenance-of-mine", "only the worker"),
        (b"public/logs/live_backing.log", "only the worker"),
        (b"public/logs/mine.txt", "only the worker"),
    ],
)
async def test_a_name_that_may_not_be_published_is_refused(
    workspace: Workspace, outputs: Path, name: bytes, why: str
) -> None:
    path = os.path.join(os.fsencode(outputs), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_CREAT))

    error = await refusal(workspace)

    assert why in str(error)
    assert str(error).isprintable()
    assert all(name.isprintable() and name.isascii() for name in error.names)


async def test_a_file_in_the_place_of_the_log_directory_is_refused(workspace: Workspace, outputs: Path) -> None:
    (outputs / "public" / "logs").rmdir()
    (outputs / "public" / "logs").touch()

    assert "only the worker" in str(await refusal(workspace))


async def test_an_output_that_no_rule_allows_is_refused(workspace: Workspace, outputs: Path) -> None:
    (outputs / "public" / "secret.key").touch()

    error = await refusal(workspace, replace(RULES, allow=("public/*.txt",)))

    assert "'public/secret.key' is not among the outputs that the policy allows: public/*.txt" in str(error)


async def test_all_offenders_are_named_at_once(workspace: Workspace, outputs: Path) -> None:
    a_dangling_link(outputs / "link")
    os.mkfifo(outputs / "fifo")
    (outputs / "public" / "chain-of-trust.json").touch()
    (outputs / "good").touch()

    error = await refusal(workspace)

    assert error.names == ("fifo", "link", "public/chain-of-trust.json")


async def test_many_offenders_are_counted_in_the_message_and_all_named(workspace: Workspace, outputs: Path) -> None:
    for number in range(50):
        a_dangling_link(outputs / f"{number:02d}")

    error = await refusal(workspace)

    assert str(error).endswith("and 30 more")
    assert len(error.names) == 50


async def test_a_sparse_file_of_ten_gigabytes_is_refused_by_its_size_alone(workspace: Workspace, outputs: Path) -> None:
    with (outputs / "sparse").open("wb") as file:
        file.truncate(10 * 2**30)

    error = await refusal(workspace)

    assert f"has {10 * 2**30} bytes, more than the rule's limit of {64 * MIB}" in str(error)


async def test_outputs_that_are_too_large_together_are_refused(workspace: Workspace, outputs: Path) -> None:
    for name in "abc":
        with (outputs / name).open("wb") as file:
            file.truncate(MIB)

    error = await refusal(workspace, replace(RULES, max_total=2 * MIB))

    assert f"together they are larger than {2 * MIB} bytes" in str(error)


async def test_more_outputs_than_allowed_are_refused(workspace: Workspace, outputs: Path) -> None:
    for number in range(6):
        (outputs / f"{number}").touch()

    error = await refusal(workspace, replace(RULES, max_count=5))

    assert "there are more than 5 outputs" in str(error)


async def test_ten_thousand_outputs_are_sealed(workspace: Workspace, outputs: Path) -> None:
    for number in range(10_000):
        (outputs / f"{number:05d}").touch()

    assert len(await seal(workspace, replace(RULES, max_count=10_000))) == 10_000


async def test_directories_nested_too_deep_are_refused(workspace: Workspace, outputs: Path) -> None:
    deep = outputs.joinpath(*["d"] * MAX_DEPTH)
    deep.mkdir(parents=True)

    assert "is nested deeper than 32 directories" in str(await refusal(workspace))


async def test_a_path_too_long_to_be_opened_is_the_scripts_fault_and_not_the_hosts(
    workspace: Workspace, outputs: Path
) -> None:
    directory = os.open(outputs, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 255, dir_fd=directory)
        below = os.open("d" * 255, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)

    assert "is nested deeper than" in str(await refusal(workspace))


def test_a_million_directory_entries_are_not_all_looked_at(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"d{number}").mkdir()
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(BadArtifact, match="more than 10 files and directories"):
            find_outputs(root, RULES, max_entries=10)
    finally:
        os.close(root)


async def test_a_file_that_nobody_may_read_is_sealed_by_root_and_refused_for_others(
    workspace: Workspace, outputs: Path
) -> None:
    (outputs / "mute").write_bytes(b"content")
    (outputs / "mute").chmod(0)

    if os.geteuid() == 0:
        (artifact,) = await seal(workspace)
        assert artifact.size == 7
    else:
        with pytest.raises(BadArtifact, match="cannot be read by the worker"):
            await seal(workspace)


@pytest.mark.parametrize("make", [a_linked_directory, lambda path: path.touch()])
async def test_an_artifact_directory_that_was_replaced_is_refused(
    workspace: Workspace, outputs: Path, make: Callable[[Path], None]
) -> None:
    outputs.rename(outputs.parent / "elsewhere")
    make(outputs)

    assert "the artifact directory" in str(await refusal(workspace))


@pytest.mark.sandbox
async def test_another_file_system_among_the_outputs_is_refused(workspace: Workspace, outputs: Path) -> None:
    (outputs / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", outputs / "mounted"], check=True)
    try:
        error = await refusal(workspace)
    finally:
        subprocess.run(["umount", outputs / "mounted"], check=True)

    assert "'mounted' lies on another file system" in str(error)


async def test_a_spool_that_cannot_be_written_is_the_hosts_fault(workspace: Workspace, outputs: Path) -> None:
    (outputs / "a").touch()
    Path(workspace.spool).rmdir()

    with pytest.raises(HostError, match="cannot be sealed"):
        await seal(workspace)


async def test_a_missing_workspace_is_the_hosts_fault(workspace: Workspace) -> None:
    with pytest.raises(HostError, match="cannot be sealed"):
        await seal(replace(workspace, task="/nonexistent"))


def copy_after(workspace: Workspace, outputs: Path, change: Callable[[], object]) -> None:
    """Look, let something change what was seen, and copy."""
    root = os.open(outputs, os.O_RDONLY)
    try:
        found = find_outputs(root, RULES)
        change()
        copy_all(root, found, [f"{workspace.spool}/{number}" for number in range(len(found))], threading.Event())
    finally:
        os.close(root)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_same_size(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"evil")


def a_hard_link_of(path: Path) -> None:
    path.with_name("second").hardlink_to(path)


def put_behind_a_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to("moved")


@pytest.mark.parametrize(
    "change",
    [Path.unlink, grow, replace_by_link, replace_by_fifo, replace_by_same_size, put_behind_a_link, a_hard_link_of],
)
def test_an_output_that_changes_between_look_and_copy_is_refused(
    workspace: Workspace, outputs: Path, change: Callable[[Path], object]
) -> None:
    victim = outputs / "public" / "a"
    victim.write_bytes(b"good")
    (outputs / "other").touch()

    with pytest.raises(BadArtifact, match="'public/a' changed while it was sealed") as caught:
        copy_after(workspace, outputs, lambda: change(victim))

    assert caught.value.names == ("public/a",)


@pytest.mark.parametrize("size", [0, 9, 10 * MIB])
@pytest.mark.parametrize("difference", [-1, 1])
def test_a_file_that_is_not_as_long_as_it_was_is_not_copied(tmp_path: Path, size: int, difference: int) -> None:
    expected = max(size + difference, 0) if size else 0
    with (tmp_path / "a").open("wb") as file:
        file.truncate(size or 1)
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("wb") as target, pytest.raises(Changed):
        copy_hashed(source.fileno(), target.fileno(), expected, threading.Event())


def test_an_abandoned_copy_ends_within_a_buffer(tmp_path: Path) -> None:
    abandoned = threading.Event()
    abandoned.set()
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**30)
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("wb") as target:
        with pytest.raises(Abandoned):
            copy_hashed(source.fileno(), target.fileno(), 2**30, abandoned)
        assert target.tell() == 0


def test_an_abandoned_seal_copies_no_further_file(workspace: Workspace, outputs: Path) -> None:
    (outputs / "a").touch()
    abandoned = threading.Event()
    abandoned.set()
    root = os.open(outputs, os.O_RDONLY)
    try:
        with pytest.raises(Abandoned):
            copy_all(root, find_outputs(root, RULES), [f"{workspace.spool}/0"], abandoned)
    finally:
        os.close(root)
    assert os.listdir(workspace.spool) == []


def test_no_offence_raises_nothing() -> None:
    Offences().raise_any()


def test_long_names_are_shortened_in_messages() -> None:
    offences = Offences()
    offences.add("x" * 97 + "...", "is a FIFO")
    with pytest.raises(BadArtifact, match=r"x{97}\.\.\.' is a FIFO"):
        offences.raise_any()
