"""gzip: deterministic, and only where it helps."""

import gzip
import os
import threading
from pathlib import Path

import pytest

from secureworker.artifacts.compress import compress_file
from secureworker.host.threads import Abandoned


def test_the_same_content_gives_the_same_bytes_whatever_the_files_name_and_time(tmp_path: Path) -> None:
    content = b"a line of a log\n" * 200_000
    for name, moment in (("a", 1), ("b", 1_000_000_000)):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (moment, moment))
        size = compress_file(str(tmp_path / name), str(tmp_path / f"{name}.gz"), threading.Event())
        assert size == (tmp_path / f"{name}.gz").stat().st_size

    packed = (tmp_path / "a.gz").read_bytes()
    assert packed == (tmp_path / "b.gz").read_bytes()
    assert packed[4:8] == bytes(4)
    assert gzip.decompress(packed) == content


@pytest.mark.parametrize("size", [0, 10, 3 * 2**20])
def test_what_does_not_get_smaller_leaves_no_file(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(os.urandom(size))

    assert compress_file(str(tmp_path / "a"), str(tmp_path / "a.gz"), threading.Event()) is None
    assert not (tmp_path / "a.gz").exists()


def test_an_abandoned_compression_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10_000))
    abandoned = threading.Event()
    abandoned.set()

    with pytest.raises(Abandoned):
        compress_file(str(tmp_path / "a"), str(tmp_path / "a.gz"), abandoned)

    assert not (tmp_path / "a.gz").exists()
