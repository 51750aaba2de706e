"""One worker of an identity on a host."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from secureworker.core.errors import HostError
from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.host.sole import sole_worker

ME = WorkerIdentity(WorkerPool("test-provisioner", "worker-type"), "group", "worker-1")
OTHER = WorkerIdentity(ME.pool, "group", "worker-2")
ROOT_URL = "https://tc.example.com"


def test_a_second_worker_of_an_identity_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    locks = str(tmp_path / "made" / "workers")
    with (
        sole_worker(ME, ROOT_URL, locks),
        pytest.raises(HostError, match="another --worker-id"),
        sole_worker(ME, ROOT_URL + "/", locks),
    ):
        pass


def test_other_workers_and_other_taskclusters_do_not_mind_each_other(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for identity, root_url in ((ME, ROOT_URL), (OTHER, ROOT_URL), (ME, "https://other.example.com")):
            stack.enter_context(sole_worker(identity, root_url, str(tmp_path / "workers")))


def test_a_worker_may_come_again_when_the_first_has_gone_and_no_descriptor_stays(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with sole_worker(ME, ROOT_URL, str(tmp_path / "workers")):
            pass
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(HostError, match="cannot be made: "),
        sole_worker(ME, ROOT_URL, str(tmp_path / "file" / "workers")),
    ):
        pass


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers").chmod(0o777)
    with pytest.raises(HostError, match="others may write there"), sole_worker(ME, ROOT_URL, str(tmp_path / "workers")):
        pass
