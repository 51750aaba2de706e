"""Files and trees that a script may have made as it liked."""

import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from secureworker.host import files


def descend(top: Path, levels: int, *, content: bytes = b"") -> None:
    """Make directories within directories, each named `d` with a file `f`, by descriptors: no path is that long."""
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        file = os.open("f", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here)
        os.write(file, content)
        os.close(file)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    return tree


def test_a_tree_of_4000_levels_is_measured_and_removed(tree: Path, tmp_path: Path) -> None:
    descend(tree, 4000, content=b"x" * 5000)
    size = files.measure(str(tree), most_bytes=1 << 40, most_files=1 << 40)
    assert size.files == 8000
    assert size.allocated_bytes >= 4000 * 5000
    files.remove_tree(str(tree))
    assert list(tmp_path.iterdir()) == []


def test_a_tree_with_modes_links_and_odd_files_is_removed_and_nothing_outside(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    (tree / "link").symlink_to(outside)
    (tree / "dangling").symlink_to("/no/such/file")
    os.mkfifo(tree / "fifo")
    (tree / "closed" / "within").mkdir(parents=True)
    (tree / "closed" / "within" / "file").write_text("")
    os.mkdir(os.fsencode(tree) + b"/\xff\n")
    (tree / "closed" / "within").chmod(0)
    (tree / "closed").chmod(0)
    tree.chmod(0)
    files.remove_tree(str(tree))
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "file").read_text() == "stays"


REMOVING = """
import sys
from secureworker.host import files
try:
    files.remove_tree(sys.argv[1])
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.sandbox
@pytest.mark.parametrize("content", ["stays", None])
def test_what_is_mounted_within_a_tree_is_an_error_and_stays(tree: Path, tmp_path: Path, content: str | None) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree / "mounted").mkdir()
    if content is not None:
        (outside / "file").write_text(content)
    within = f'mount --bind {outside} {tree}/mounted && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", within, "sh", sys.executable, "-c", REMOVING, str(tree)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"OSError {errno.EBUSY}\n"
    assert [path.name for path in outside.iterdir()] == ([] if content is None else ["file"])


def test_removing_nothing_a_file_or_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("stays")
    (tmp_path / "link").symlink_to("file")
    files.remove_tree(str(tmp_path / "nothing"))
    files.remove_tree(str(tmp_path / "link"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    files.remove_tree(str(tmp_path / "file"))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_removal_is_taken_up_again(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "tree.removing" / "7" / "d").mkdir(parents=True)
    (tree / "file").write_text("")
    files.remove_tree(str(tree))
    assert list(tmp_path.iterdir()) == []


def test_measuring_counts_what_is_allocated_and_follows_no_link(tree: Path) -> None:
    with (tree / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    (tree / "link").symlink_to("/usr")
    (tree / "d").mkdir()
    (tree / "d" / "full").write_bytes(b"x" * 8192)
    size = files.measure(str(tree), most_bytes=1 << 40, most_files=100)
    assert size.files == 4
    assert 8192 <= size.allocated_bytes < 100_000


def test_measuring_stops_when_there_is_too_much(tree: Path) -> None:
    for number in range(100):
        (tree / str(number)).write_bytes(b"x" * 5000)
        (tree / f"d{number}").mkdir()
    assert files.measure(str(tree), most_bytes=1 << 40, most_files=10).files == 11
    assert files.measure(str(tree), most_bytes=10_000, most_files=1000).allocated_bytes < 50_000


def test_a_tree_that_is_rearranged_meanwhile_is_measured_or_said_to_move(tree: Path) -> None:
    # Beyond 128 levels the way back is `..`: moved elsewhere meanwhile, it must not lead the walk astray.
    descend(tree, 160)
    level = tree / Path(*("d",) * 140)
    over = threading.Event()

    def move() -> None:
        while not over.is_set():
            os.rename(level / "d", tree / "moved")
            os.rename(tree / "moved", level / "d")

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for _ in range(50):
            try:
                assert files.measure(str(tree), most_bytes=1 << 40, most_files=1 << 40).files <= 400
            except files.TreeMoved:
                break
    finally:
        over.set()
        thread.join()


def test_the_way_back_up_is_checked(tree: Path, tmp_path: Path) -> None:
    descend(tree, 160)
    walk = files._Walk(1 << 40, 1 << 40)
    walk.enter(str(tree), None)
    try:
        for _ in range(150):
            walk.descend(walk.levels[-1].pending.pop())
        deepest = Path(tree, *("d",) * 150)
        os.rename(deepest, tmp_path / "elsewhere")
        with pytest.raises(files.TreeMoved):
            walk.leave()
    finally:
        for level in walk.levels:
            level.close()


def test_a_copy_is_hashed_as_it_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 3_000_000)
    assert files.copy_hashed(str(source), str(target), mode=0o555) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert target.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o555


@pytest.mark.parametrize("source", ["directory", "fifo", "missing"])
def test_only_regular_files_are_copied(tmp_path: Path, source: str) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match=r"regular file|Is a directory|No such file"):
        files.copy_hashed(str(tmp_path / source), str(tmp_path / "target"), mode=0o555)


def test_new_files_and_directories_have_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write_new(str(tmp_path / "file"), b"x" * 100, mode=0o644)
        files.make_directory(str(tmp_path / "directory"), mode=0o755)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "directory").stat().st_mode) == 0o755
    with pytest.raises(FileExistsError):
        files.write_new(str(tmp_path / "file"), b"", mode=0o644)


def test_json_is_written_as_the_contract_says() -> None:
    assert files.as_json({"b": 1, "a": [True]}) == b'{\n  "a": [\n    true\n  ],\n  "b": 1\n}\n'
