"""The process that shows logs, from the worker's side and from outside."""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from secureworker.core.errors import HostError, SettingsError
from secureworker.livelog.__main__ import MOST_DESCRIPTORS, NICENESS
from secureworker.livelog.settings import LiveLogSettings, read_place, read_url
from secureworker.livelog.showing import ShownLogs, shown_logs
from tests.livelog.reading import SECONDS, Pair, Reader, read
from tests.sandbox.cage import a_directory

RUN = "fN1SbArXTPSVFUUvaOlinQ/0"


@pytest.fixture
def pair() -> Iterator[Pair]:
    # The directory of a key is looked at all the way up, and anybody can write to /tmp.
    with a_directory() as directory:
        yield Pair.make(directory)


def settings_of(pair: Pair, **changes: str) -> LiveLogSettings:
    given = {"certificate": str(pair.certificate), "key": str(pair.key)} | changes
    return LiveLogSettings("https://here.invalid:60098", ("127.0.0.1", 0), **given)


@pytest.fixture
async def shown(pair: Pair) -> AsyncIterator[ShownLogs]:
    async with shown_logs(settings_of(pair)) as logs:
        yield logs


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch(mode=0o600)
    return path


def port_of(shown: ShownLogs) -> int:
    return int(shown._listener.getsockname()[1])


def pid_of(shown: ShownLogs) -> int:
    assert shown._process is not None
    return shown._process.child.pid


def path_of(address: str) -> str:
    return address.removeprefix("https://here.invalid:60098")


async def test_a_log_is_shown_until_it_has_ended(shown: ShownLogs, pair: Pair, log: Path) -> None:
    log.write_bytes(b"first\n")
    one = await Reader.connect(port_of(shown), pair)
    await one.ask(path_of(await shown.show(RUN, str(log))))
    await one.head()
    assert await one.chunk() == b"first\n"
    with log.open("ab") as file:
        file.write(b"second\n")
    # The worker removes it right after its upload.
    log.unlink()
    assert shown.ended(RUN)
    assert await one.rest() == b"second\n"
    assert not shown.ended(RUN)
    await one.close()


async def test_every_log_has_an_address_of_its_own(shown: ShownLogs, pair: Pair, log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for path, content in ((log, b"one"), (other, b"other")):
        path.write_bytes(content)
    addresses = [await shown.show(run, str(path)) for run, path in ((RUN, log), ("other/0", other))]
    assert len(set(addresses)) == 2
    assert len(path_of(addresses[0])) == len("/log/") + 43
    shown.ended(RUN)
    shown.ended("other/0")
    contents = [(await read(port_of(shown), pair, path_of(address)))[1] for address in addresses]
    assert contents == [b"one", b"other"]


async def test_a_log_is_not_shown_through_a_link(shown: ShownLogs, log: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(log)
    with pytest.raises(HostError, match="cannot be handed over"):
        await shown.show(RUN, str(tmp_path / "link"))


@pytest.mark.sandbox
async def test_the_process_has_no_rights_and_knows_no_address(shown: ShownLogs, log: Path) -> None:
    address = await shown.show(RUN, str(log))
    place = Path(f"/proc/{pid_of(shown)}")
    status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines() if ":\t" in line)
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    token = path_of(address).removeprefix("/log/")
    assert token not in (place / "cmdline").read_text()
    assert token not in (place / "environ").read_text()


async def test_signals_to_the_whole_group_leave_it_to_show_the_rest(shown: ShownLogs, pair: Pair, log: Path) -> None:
    log.write_bytes(b"all of it\n")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid_of(shown), number)
    address = await shown.show(RUN, str(log))
    shown.ended(RUN)
    assert (await read(port_of(shown), pair, path_of(address)))[1] == b"all of it\n"


async def test_a_process_that_was_killed_is_started_again_for_the_next_log(
    shown: ShownLogs, pair: Pair, log: Path
) -> None:
    await shown.show(RUN, str(log))
    first = pid_of(shown)
    os.kill(first, signal.SIGKILL)
    assert shown._process is not None
    await asyncio.to_thread(shown._process.child.wait)
    shown.ended(RUN)
    log.write_bytes(b"the next one\n")
    address = await shown.show("next/0", str(log))
    shown.ended("next/0")
    assert pid_of(shown) != first
    assert (await read(port_of(shown), pair, path_of(address)))[1] == b"the next one\n"


async def test_a_run_whose_log_was_shown_by_a_process_that_is_gone_still_had_it_shown(
    shown: ShownLogs, log: Path
) -> None:
    await shown.show(RUN, str(log))
    assert shown._process is not None
    shown._process.child.kill()
    await asyncio.to_thread(shown._process.child.wait)
    await shown.show("next/0", str(log))
    # Its artifact leads to an address that nobody answers at: it is to lead to the log that was uploaded.
    assert shown.ended(RUN)
    assert shown.ended("next/0")


async def test_where_no_process_can_be_started_that_is_an_error_of_this_host(shown: ShownLogs, log: Path) -> None:
    assert shown._process is not None
    shown._process.child.kill()
    await asyncio.to_thread(shown._process.child.wait)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # As many as this needs to look at the certificate and its key, and none for the process.
    free = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 3, before[1]))
    try:
        with pytest.raises(HostError, match="Too many open files"):
            await shown.show(RUN, str(log))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    await shown.show(RUN, str(log))


async def test_what_strangers_have_it_do_comes_after_what_the_worker_does(shown: ShownLogs) -> None:
    assert os.getpriority(os.PRIO_PROCESS, pid_of(shown)) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


async def test_a_process_that_takes_nothing_any_more_is_replaced_and_nobody_waits_for_it(
    shown: ShownLogs, pair: Pair, log: Path
) -> None:
    stopped = pid_of(shown)
    os.kill(stopped, signal.SIGSTOP)
    number = 0
    async with asyncio.timeout(SECONDS):
        while pid_of(shown) == stopped:
            number += 1
            with suppress(HostError):
                await shown.show(f"{number}/0", str(log))
            shown.ended(f"{number}/0")
            await asyncio.sleep(0)
    log.write_bytes(b"a line\n")
    address = await shown.show(RUN, str(log))
    shown.ended(RUN)
    assert (await read(port_of(shown), pair, path_of(address)))[1] == b"a line\n"


async def test_more_logs_than_it_has_descriptors_leave_those_that_are_shown(
    shown: ShownLogs, pair: Pair, log: Path
) -> None:
    one = await Reader.connect(port_of(shown), pair)
    await one.ask(path_of(await shown.show(RUN, str(log))))
    await one.head()
    before = pid_of(shown)
    handed = 0
    async with asyncio.timeout(SECONDS):
        while handed < MOST_DESCRIPTORS:
            try:
                await shown.show(f"{handed}/0", str(log))
                handed += 1
            except HostError:
                # More than it has taken yet; it is never waited for.
                await asyncio.sleep(0.01)
    log.write_bytes(b"still here\n")
    assert await one.chunk() == b"still here\n"
    assert pid_of(shown) == before
    await one.close()


async def test_a_renewed_certificate_is_taken_once_nothing_is_shown(shown: ShownLogs, pair: Pair, log: Path) -> None:
    log.write_bytes(b"a line\n")
    first = await shown.show(RUN, str(log))
    pair.authority.server("127.0.0.1", "renewed.invalid")
    pair.replace((pair.authority.directory / "127.0.0.1.pem").read_bytes())
    before = pid_of(shown)
    await shown.show("other/0", str(log))
    assert pid_of(shown) == before
    shown.ended(RUN)
    shown.ended("other/0")
    assert "200" in (await read(port_of(shown), pair, path_of(first)))[0]
    address = await shown.show("third/0", str(log))
    one = await Reader.connect(port_of(shown), pair)
    names = one.writer.get_extra_info("peercert")["subjectAltName"]
    assert ("DNS", "renewed.invalid") in names
    await one.ask(path_of(address))
    assert "200" in await one.head()
    await one.close()


async def test_nothing_that_lies_where_the_worker_was_started_is_run(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "argparse.py").write_text("from pathlib import Path\nPath('run').touch()\nraise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    async with shown_logs(settings_of(pair)):
        pass
    assert not (tmp_path / "run").exists()


async def test_nothing_listens_when_it_is_over(pair: Pair) -> None:
    async with shown_logs(settings_of(pair)) as shown:
        port, process = port_of(shown), shown._process
        assert process is not None
    assert process.child.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        async with asyncio.timeout(SECONDS):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_key_that_others_can_read_is_refused(pair: Pair) -> None:
    pair.key.chmod(0o640)
    with pytest.raises(SettingsError, match="others can read"):
        async with shown_logs(settings_of(pair)):
            pass


async def test_a_certificate_of_another_key_is_refused(pair: Pair) -> None:
    second = Pair.make(pair.authority.directory)
    key = second.key.read_bytes()
    first = Pair.make(pair.authority.directory)
    first.key.write_bytes(key)
    with pytest.raises(HostError, match="PEM files that belong together"):
        async with shown_logs(settings_of(first)):
            pass


async def test_a_certificate_that_is_not_there_is_named(pair: Pair) -> None:
    with pytest.raises(SettingsError, match=r"/nowhere/chain\.pem cannot be read"):
        async with shown_logs(settings_of(pair, certificate="/nowhere/chain.pem")):
            pass


async def test_a_port_that_is_taken_is_named(pair: Pair, shown: ShownLogs) -> None:
    taken = LiveLogSettings("https://x", ("127.0.0.1", port_of(shown)), str(pair.certificate), str(pair.key))
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1:\d+: Address already in use.*; give another address"):
        async with shown_logs(taken):
            pass


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("60098", ("0.0.0.0", 60098)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:443", ("::1", 443)),
    ],
)
def test_places_are_read(text: str, place: tuple[str, int]) -> None:
    assert read_place(text) == place


@pytest.mark.parametrize("text", ["", "host", "host:1", "1.2.3.4", "1.2.3.4:65536", "::1:5", "1.2.3.4:5/x"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        read_place(text)


@pytest.mark.parametrize("text", ["http://a", "https://a/path", "https://a?x", "https://u@a", "a", "https://"])
def test_what_is_no_address_of_https_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        read_url(text)


def test_the_address_has_no_slash_at_its_end() -> None:
    assert read_url("https://build1.example.com:60098/") == "https://build1.example.com:60098"
