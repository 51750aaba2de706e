"""`secureworker status` against whatever may answer: the exit codes, and what it says."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from secureworker.cli.main import cli
from secureworker.operation.view_fetch import ANSWER_BYTES, NotRunning, Place, fetch, parse_url
from secureworker.policyfile.load import read_schema

EXAMPLE: dict[str, Any] = read_schema("status")["examples"][0]
Answering = Callable[[bytes], Path]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """Give what answers each request at a socket with the same bytes."""
    listener = socket.socket(socket.AF_UNIX)
    threads: list[threading.Thread] = []

    def begin(answer: bytes) -> Path:
        listener.bind(str(tmp_path / "status.sock"))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    channel, _ = listener.accept()
                except OSError:
                    return
                with channel:
                    try:
                        channel.recv(65536)
                        channel.sendall(answer)
                    except OSError:
                        continue

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return tmp_path

    yield begin
    # A thread that waits in accept() is woken by this, and not by close().
    if threads:
        listener.shutdown(socket.SHUT_RDWR)
        threads[0].join()
    listener.close()


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["status", *arguments])


def with_state(name: str, **more: Any) -> bytes:
    state = {**EXAMPLE["state"], "name": name, **more}
    return http(json.dumps({**EXAMPLE, "state": state}).encode())


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("claiming", 0),
        ("full", 0),
        ("starting", 0),
        ("draining", 0),
        ("hindered", 1),
        ("unanswered", 1),
        ("ended", 1),
    ],
)
def test_the_exit_code_says_whether_the_worker_works(answering: Answering, state: str, code: int) -> None:
    told = run("--state-dir", str(answering(with_state(state, why="this is why"))))
    assert told.exit_code == code, told.output
    assert state in told.output
    assert "this is why" in told.output


def test_a_digest_is_not_broken_where_the_output_is_no_terminal(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    place = str(answering(with_state("full", why="")))
    told = run("--state-dir", place)
    assert f"sha256:{EXAMPLE['policy']['sha256']} since" in told.output
    monkeypatch.setenv("COLUMNS", "40")
    told = run("--state-dir", place)
    assert max(map(len, told.output.splitlines())) <= 40


def test_the_document_is_printed_as_it_came(answering: Answering) -> None:
    told = run("--json", "--socket", str(answering(http(json.dumps(EXAMPLE).encode())) / "status.sock"))
    assert told.exit_code == 0
    assert json.loads(told.output) == EXAMPLE


def test_hindrances_runs_decisions_and_errors_are_in_the_table(answering: Answering) -> None:
    hindrances = [{"what": "disk", "why": "3 MB are free; make room"}]
    told = run("--state-dir", str(answering(with_state("hindered", why="x", hindrances=hindrances))))
    for said in (
        "disk: 3 MB are free; make room",
        "sign firefox",
        "tasks.scheduler-ids",
        "malformed-payload",
        "2 times",
    ):
        assert said in told.output.replace("\n", " "), said


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "does not answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer"),
        (http(b"not found", "404 Not Found"), "is no worker: it says 404"),
        (http(b"<html>"), "it sends no JSON"),
        (http(b"[]"), "it sends no status"),
        (http(b"{}"), "is no worker of this version"),
        (http(b'{"version": 2}'), "is no worker of this version"),
        (http(b"[" * 100_000), "it sends no JSON"),
        (http(b" " * (ANSWER_BYTES + 1)), "is no worker"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort", "it sends no JSON"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, "does not answer"),
    ],
    ids=range(11),
)
def test_whatever_answers_is_a_worker_or_the_answer_is_3(answering: Answering, answer: bytes, why: str) -> None:
    told = run("--state-dir", str(answering(answer)))
    assert (told.exit_code, told.stdout) == (3, "")
    assert why in told.stderr
    assert told.exception is None or isinstance(told.exception, SystemExit)


@pytest.mark.parametrize(
    "answer", [b"\x1b]0;a title\x07 hello\r\n\r\n", b"HTTP/1.1 \x1b]0;a title\x07\xc2\x9b abc\r\n\r\n"]
)
def test_no_answer_reaches_a_terminal_as_it_came(answering: Answering, answer: bytes) -> None:
    # While the worker is down, whoever is on its host can listen at its port.
    told = run("--state-dir", str(answering(answer)))
    assert told.exit_code == 3
    assert "\\x1b]0;a title\\x07" in told.stderr
    assert told.stderr.removesuffix("\n").isprintable()


def test_where_nothing_answers_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "gone", tmp_path, tmp_path / "file"):
        told = run("--state-dir", str(place))
        assert told.exit_code == 3
        assert "answer" in told.stderr
        assert told.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--socket", "/s", "--url", "http://127.0.0.1:1"),
        ("--url", "https://127.0.0.1:1"),
        ("--url", "http://user@127.0.0.1:1"),
        ("--url", "http://127.0.0.1:99999"),
        ("--url", "http:///x"),
        ("--url", "http://127.0.0.1/other"),
        ("--url", "http://[::1"),
        ("--every", "0"),
    ],
    ids=range(8),
)
def test_a_wrong_command_line_is_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_urls_are_read() -> None:
    assert parse_url("http://127.0.0.1:8080/") == Place(host="127.0.0.1", port=8080)
    assert str(parse_url("http://[::1]")) == "::1:80"


def test_nobody_at_a_port_is_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert run("--url", f"http://127.0.0.1:{port}").exit_code == 3


def watching(where: Path, *more: str, **streams: Any) -> "subprocess.Popen[bytes]":
    arguments = ["--state-dir", str(where), "--watch", "--every", "0.2", *more]
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "200", "TERM": "xterm"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    return subprocess.Popen([sys.executable, "-m", "secureworker", "status", *arguments], env=environment, **streams)


def interrupted(process: "subprocess.Popen[bytes]") -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(60)


def test_who_reads_no_further_ends_the_watching_without_a_word(answering: Answering) -> None:
    where = answering(http(json.dumps(EXAMPLE).encode()))
    with watching(where, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline()) == EXAMPLE
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_watching_goes_on_where_no_worker_is_and_shows_the_next(tmp_path: Path, answering: Answering) -> None:
    with watching(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"no worker answers" in process.stderr.readline()
        answering(http(json.dumps(EXAMPLE).encode()))
        assert b"release/sign/dc1/signer-1" in process.stdout.readline()
        process.stdout.close()
        process.stderr.close()
        process.kill()


def test_on_a_terminal_too(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    with watching(tmp_path, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        shown = b""
        while b"no worker answers" not in shown:
            shown += os.read(ours, 65536)
        assert interrupted(process) == 0
    os.close(ours)


def test_an_answer_that_comes_a_byte_now_and_then_is_given_up_on(tmp_path: Path) -> None:
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "status.sock"))
        listener.listen()

        def drip() -> None:
            channel, _ = listener.accept()
            with channel:
                try:
                    while not over.wait(0.01):
                        channel.sendall(b"H")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(NotRunning, match="does not answer"):
                fetch(Place(path=str(tmp_path / "status.sock")), whole_seconds=0.3)
        finally:
            over.set()
            thread.join()
