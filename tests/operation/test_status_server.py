"""The status server: what it answers, and what nobody gets out of it, or into it."""

import asyncio
import json
import logging
import os
import resource
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.errors import SettingsError
from secureworker.core.happening import Claimed, Phase, PhaseEntered
from secureworker.core.ids import RunId, TaskId
from secureworker.host.sockets import connected, listening_in_files
from secureworker.operation.server import Bounds
from secureworker.operation.server_http import HEAD_BYTES, Answer, Refusal, Request, parse
from secureworker.operation.view_open import Places, parse_places
from secureworker.testing import TASK_ID
from tests.end_to_end.daemon import eventually
from tests.operation.conftest import Serve, Served

TASK = TaskId(TASK_ID)
HERE = b"Host: localhost\r\n\r\n"


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))))
def test_whatever_is_sent_is_a_request_to_read_here_or_is_refused(sent: bytes) -> None:
    for head in (sent, b"GET /" + sent, b"GET / HTTP/1.1\r\n" + sent, b"GET / HTTP/1.1\r\nHost: " + sent):
        with suppress(Refusal):
            request = parse(head)
            assert request.method in {"GET", "HEAD"}
            assert request.path.isascii()


async def test_page_document_and_log_are_served(served: Served) -> None:
    served.board.saw(Claimed(TASK, RunId(0), "a task"))
    (served.logs / f"{TASK_ID}-0.log").write_text("the script has begun\n")

    pages = {path: await served.get(path) for path in ("/", "/status.json", f"/runs/{TASK_ID}/0/log")}

    assert [status for status, _, _ in pages.values()] == [200, 200, 200]
    assert b"the script has begun" in pages["/"][2]
    assert json.loads(pages["/status.json"][2])["runs"][0]["name"] == "a task"
    assert pages[f"/runs/{TASK_ID}/0/log"][2] == b"the script has begun\n"


async def test_head_is_answered_as_get_is_but_without_the_body(served: Served) -> None:
    answer = await served.raw(b"HEAD /status.json HTTP/1.1\r\n" + HERE)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b""
    assert int(head.partition(b"Content-Length: ")[2].split()[0]) > 100


async def test_every_answer_forbids_a_browser_all_but_showing_it(served: Served) -> None:
    for path in ("/", "/status.json", "/nothing"):
        _, headers, _ = await served.get(path)
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\n" + HERE, 405),
        (b"DELETE /status.json HTTP/1.1\r\n" + HERE, 405),
        (b"OPTIONS / HTTP/1.1\r\n" + HERE, 405),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n" + HERE + b"hello", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HERE, 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + HERE, 400),
        (b"GET / HTTP/1.1\r\n folded: header\r\n" + HERE, 400),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: localhost\r\n\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\n" + HERE, 400),
        (b"GET / HTTP/2.0\r\n" + HERE, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\n" + HERE, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000_000 + b"\r\n" + HERE, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + HERE, 431),
        (b"GET /nothing HTTP/1.1\r\n" + HERE, 404),
        (b"GET // HTTP/1.1\r\n" + HERE, 404),
    ],
)
async def test_what_is_no_request_to_read_is_refused(served: Served, sent: bytes, status: int) -> None:
    try:
        answer = await served.raw(sent)
    except ConnectionError:
        # More was on its way than is ever read.
        assert status == 431
    else:
        assert status_of(answer) == status
    assert (await served.get("/"))[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../key",
        "/runs/../../../etc/passwd",
        "/runs/..%2f..%2fetc%2fpasswd/0/log",
        "/runs/%2e%2e/0/log",
        "/runs//0/log",
        f"/runs/{TASK_ID}/0/../0/log",
        f"/runs/{TASK_ID}/00/log",
        f"/runs/{TASK_ID}/-0/log",
        f"/runs/{TASK_ID}/0/log/",
        f"/runs/{TASK_ID}/0/log%00",
        f"/runs/{TASK_ID}/1/log",
        "/runs/AAAAAAAAQACAAAAAAAAAAA/0/log",
        "/runs/",
        "/runs",
    ],
)
async def test_no_path_leads_to_a_file_but_the_log_of_a_run_that_is_ours(served: Served, path: str) -> None:
    served.board.saw(Claimed(TASK, RunId(0), "a task"))
    for name in (f"{TASK_ID}-0.log", f"{TASK_ID}-1.log", "AAAAAAAAQACAAAAAAAAAAA-0.log"):
        (served.logs / name).write_text("a log")
    status, _, body = await served.get(path)
    assert status == 404
    assert b"a log" not in body


async def test_the_log_of_a_run_that_has_ended_is_not_served(served: Served) -> None:
    served.board.saw(Claimed(TASK, RunId(0), "a task"))
    served.board.saw(PhaseEntered(TASK, RunId(0), Phase.ENDED))
    (served.logs / f"{TASK_ID}-0.log").write_text("a log")
    assert (await served.get(f"/runs/{TASK_ID}/0/log"))[0] == 404


async def test_a_link_in_the_place_of_a_log_is_not_followed(served: Served, tmp_path: Path) -> None:
    served.board.saw(Claimed(TASK, RunId(0), "a task"))
    (tmp_path / "secret").write_text("a secret")
    (served.logs / f"{TASK_ID}-0.log").symlink_to(tmp_path / "secret")
    assert (await served.get(f"/runs/{TASK_ID}/0/log"))[0] == 404
    assert b"a secret" not in (await served.get("/"))[2]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.3.2.1", "[::1]:9", "[::1]"])
async def test_this_machines_own_names_are_answered(served: Served, host: str) -> None:
    assert (await served.get("/status.json", Host=host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        "localhost:x",
    ],
)
async def test_another_name_that_leads_here_is_refused(served: Served, host: str) -> None:
    status, _, body = await served.get("/status.json", Host=host)
    assert status == 421
    assert b"workerId" not in body


async def test_a_request_without_a_host_is_refused(served: Served) -> None:
    assert status_of(await served.raw(b"GET / HTTP/1.0\r\n\r\n")) == 421


async def test_another_sites_page_gets_nothing_and_a_link_from_it_is_followed(served: Served) -> None:
    for site in ("cross-site", "same-site"):
        refused, _, _ = await served.get("/status.json", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")
        followed, _, _ = await served.get("/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")
        assert (refused, followed) == (403, 200)


async def test_who_asks_slowly_is_let_go_and_keeps_nobody_waiting(serve: Serve) -> None:
    async with serve(Bounds(connections=4, head_seconds=0.3, pause_seconds=0)) as served:
        slow = [await asyncio.open_unix_connection(str(served.path)) for _ in range(3)]
        for _, writer in slow:
            writer.write(b"GET / HTTP/1.1\r\nX-")
        assert (await served.get("/status.json"))[0] == 200
        for reader, writer in slow:
            # A byte now and then gives nobody more time.
            writer.write(b"a")
            assert status_of(await reader.read()) == 408
            writer.close()


async def test_who_does_not_take_the_answer_is_let_go(serve: Serve) -> None:
    big = Answer(b"x" * 8_000_000)
    async with serve(
        Bounds(connections=1, answer_seconds=0.3, pause_seconds=0), routes={"/big": lambda _: big}
    ) as served:
        with socket.socket(socket.AF_UNIX) as stuck:
            stuck.connect(str(served.path))
            stuck.sendall(b"GET /big HTTP/1.1\r\n" + HERE)

            async def is_answered() -> bool:
                return (await served.get("/status.json"))[0] == 200

            await eventually(is_answered, "the place of the one that was let go")


async def test_a_thousand_connections_leave_the_loop_free_and_end_with_the_server(serve: Serve) -> None:
    # Without waiting in between: the listener's queue is 16 long, so most are made while the server turns away.
    async with serve(Bounds(connections=8, head_seconds=60, pause_seconds=0)) as served:
        kept: list[asyncio.StreamWriter] = []
        turned_away = 0
        longest = 0.0
        for _ in range(1000):
            began = time.perf_counter()
            reader, writer = await asyncio.open_unix_connection(str(served.path))
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)
            kept.append(writer)
            if len(kept) > 8:
                turned_away += status_of(await reader.read()) == 503
        assert turned_away == 992
        assert longest < 1
        assert len(os.listdir("/proc/self/fd")) < 3000
    for writer in kept:
        writer.close()
    assert not served.path.exists()


async def test_who_asks_all_the_time_gets_so_many_answers_a_second_and_no_more(serve: Serve) -> None:
    made: list[float] = []

    def get(_: Request) -> Answer:
        made.append(time.monotonic())
        return Answer(b"")

    async with serve(Bounds(pause_seconds=0.05), routes={"/x": get}) as served, asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(served.get("/x"))
    assert len(made) == 8
    assert made[-1] - made[0] >= 7 * 0.045


async def test_answers_that_cannot_be_made_or_are_too_large_end_nothing(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Request) -> Answer:
        raise RuntimeError("token=abc")

    def refusing(_: Request) -> Answer:
        raise Refusal(503, "not ready")

    routes = {"/broken": broken, "/refusing": refusing, "/below/": lambda _: Answer(b"y" * 200)}
    async with serve(Bounds(answer_bytes=100, pause_seconds=0), routes=routes) as served:
        status, _, body = await served.get("/broken")
        assert (status, b"token" in body) == (500, False)
        assert (await served.get("/refusing"))[::2] == (503, b"not ready\n")
        assert (await served.get("/below/it"))[0] == 500
        assert served.board.standing.faults[-1].message.endswith("could not be made (RuntimeError)")
    assert "could not be made" in caplog.text


async def test_an_answer_that_takes_too_long_is_not_waited_for(serve: Serve) -> None:
    def slow(_: Request) -> Answer:
        time.sleep(0.5)  # a thread's; the loop goes on
        return Answer(b"")

    async with serve(Bounds(make_seconds=0.1), routes={"/slow": slow}) as served:
        assert (await served.get("/slow"))[0] == 503


async def test_while_there_is_no_descriptor_left_callers_wait_and_the_log_says_so_once(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)  # noqa: FBT003 - the socket's own signature
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        taken = []
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            await loop.sock_connect(caller, str(served.path))
            await loop.sock_sendall(caller, b"GET /status.json HTTP/1.1\r\n" + HERE)
            await eventually(lambda: "cannot be accepted for now: [Errno 24]" in caplog.text, "the warning")
            await asyncio.sleep(0.3)  # three more attempts
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)
        assert status_of(await loop.sock_recv(caller, 65536)) == 200
    assert caplog.text.count("cannot be accepted for now") == 1
    assert served.board.standing.faults[0].times == 1


async def test_the_socket_is_the_workers_alone_and_gone_with_it(serve: Serve, tmp_path: Path) -> None:
    async with serve() as served:
        status = served.path.lstat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
    assert not served.path.exists()


async def test_in_a_directory_with_the_group_bit_its_group_may_read_too(serve: Serve, tmp_path: Path) -> None:
    tmp_path.chmod(0o2750)
    async with serve() as served:
        assert stat.S_IMODE(served.path.lstat().st_mode) == 0o660
        assert served.path.lstat().st_gid == tmp_path.stat().st_gid


async def test_a_socket_that_a_killed_worker_left_is_replaced(serve: Serve, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    async with serve() as served:
        assert (await served.get("/status.json"))[0] == 200


async def test_where_another_worker_answers_no_second_one_begins(serve: Serve) -> None:
    async with serve() as served:
        with pytest.raises(SettingsError, match=r"another process answers at .*; is a worker"):
            async with serve():
                pass
        assert (await served.get("/status.json"))[0] == 200


async def test_what_is_there_and_no_socket_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(SettingsError, match="is there already, and no socket"):
        async with serve():
            pass
    assert (tmp_path / "s").read_text() == "precious"


async def test_a_directory_that_others_may_write_is_refused(serve: Serve, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SettingsError, match=r"others could replace the socket .*chmod go-w"):
        async with serve():
            pass


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match=r"others could replace .*/gone: No such file"),
        listening_in_files(str(tmp_path / "gone" / "s")),
    ):
        pass


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with listening_in_files(str(deep / "s")), connected(str(deep / "s"), 1) as channel:
        assert channel.getpeername()


async def test_a_port_is_served_on_loopback_too(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with serve(places={"ports": (("127.0.0.1", port),)}):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /status.json HTTP/1.1\r\n" + HERE)
        assert status_of(await reader.read()) == 200
        writer.close()


async def test_a_port_that_is_taken_is_said_before_anything_begins(serve: Serve) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SettingsError, match="cannot be listened on: Address already in use"),
    ):
        async with serve(places={"ports": (taken.getsockname(),)}):
            pass


@pytest.mark.parametrize(
    ("given", "places"),
    [
        ((), Places("/state/status.sock")),
        (("none",), Places(None)),
        (("unix:/run/s",), Places("/run/s")),
        (("127.0.0.1:80", "[::1]:81"), Places("/state/status.sock", (("127.0.0.1", 80), ("::1", 81)))),
    ],
)
def test_places_are_read(given: tuple[str, ...], places: Places) -> None:
    assert parse_places(given, "/state") == places


@pytest.mark.parametrize(
    "given",
    ["0.0.0.0:80", "192.168.1.1:80", "[::]:80", "1.2.3:80", "127.0.0.1:65536", "localhost:80", "80", "unix:rel", ":80"],
)
def test_places_that_others_could_reach_or_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(SettingsError, match="the status is to be at "):
        parse_places((given,), "/state")


async def test_an_error_of_the_block_comes_out_as_it_is(serve: Serve) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with serve():
            raise KeyError("mine")


async def test_what_the_log_warns_of_is_shown_and_no_more_after_the_end(serve: Serve) -> None:
    async with serve() as served:
        logging.getLogger("x").warning("take care of %s", "it")
        logging.getLogger("x").error("now")
        logging.getLogger("x").info("nothing")
        shown = [(fault.what, fault.message) for fault in served.board.standing.faults]
        assert shown == [("warning", "take care of it"), ("error", "now")]
    logging.getLogger("x").error("later")
    assert len(served.board.standing.faults) == 2


def test_task_ids_are_what_paths_are_made_of() -> None:
    with pytest.raises(ValueError, match="no task id"):
        TaskId("../../../../etc/passwd")
