"""What a hostile script tries (edge-cases.md, 14). Each test runs the attack, and shows that it came to nothing."""

import json
import os
import platform
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.outcome import ExitCode
from secureworker.core.plan import Mount
from secureworker.sandbox.engine import instance_name
from tests.sandbox.cage import Cage, Ran, groups_of, own_mounts, some_limits

pytestmark = pytest.mark.sandbox

PRELUDE = """
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *arguments):
    ctypes.set_errno(0)
    wrapped = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return errno.errorcode.get(ctypes.get_errno(), "ok") if libc.syscall(ctypes.c_long(number), *wrapped) < 0 else "ok"
def attempt(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok"
def answer(value):
    print(json.dumps(value))
"""

X86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls are those of x86-64")


async def ask(cage: Cage, program: str, **changes: Any) -> Any:
    """Run Python in the sandbox; give what it answers."""
    ran = await cage.python(PRELUDE + program, **changes)
    assert ran.execution.status == ExitCode(0), ran.output
    return json.loads(ran.output.splitlines()[-1])


def said(ran: Ran) -> list[str]:
    return ran.output.splitlines()


async def test_files_of_the_host_are_not_there(cage: Cage, secret: Path) -> None:
    paths = [
        str(secret),
        "/etc/shadow",
        "/root",
        "/home",
        "/var/lib",
        "/boot",
        "/etc/ssl/private",
        "/run/dbus",
        "/sys",
        "/lost+found",
    ]
    places = ["", "/proc/1/root", "/proc/self/root/../..", "/proc/1/cwd/../../..", "/dev/fd/../../.."]
    found = await ask(
        cage, f"answer([p + q for p in {places} for q in {paths} if attempt(lambda: os.stat(p + q)) == 'ok'])"
    )
    assert found == []


async def test_the_hosts_secret_is_not_found_by_the_roots_of_processes(cage: Cage, secret: Path) -> None:
    ran = await cage.shell(f"cat {secret} /proc/*/root{secret} 2>/dev/null | head -c 100000")
    assert "the-secret-itself" not in ran.output


async def test_processes_of_the_host_are_not_there(cage: Cage) -> None:
    answer = await ask(
        cage,
        f"answer([[n for n in os.listdir('/proc') if n.isdigit()],"
        f" attempt(lambda: os.kill({os.getpid()}, 0)), attempt(lambda: os.stat('/proc/{os.getpid()}'))])",
    )
    # The init, and the script, whose number differs between runtimes.
    assert len(answer[0]) == 2
    assert answer[1:] == ["ESRCH", "ENOENT"]


async def test_the_init_cannot_be_killed_or_traced_or_looked_into(cage: Cage) -> None:
    answers = await ask(
        cage,
        "answer([attempt(lambda: open('/proc/1/mem', 'rb')), libc.ptrace(16, 1, None, None),"
        " attempt(lambda: os.kill(1, 9)), os.path.exists('/proc/1')])",
    )
    # The signal is taken, and ignored, as from everybody in the namespace: the init lives.
    assert answers[0] in {"EACCES", "EPERM", "ENOENT", "ok"}
    assert answers[1:] == [-1, "ok", True]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("unshare", "syscall(272, 0x10000000)"),
        ("setns", "syscall(308, 0, 0)"),
        ("mount", "syscall(165, b'/', b'/tmp', b'', 4096, 0)"),
        ("umount2", "syscall(166, b'/usr', 2)"),
        ("pivot_root", "syscall(155, b'/', b'/tmp')"),
        ("chroot", "syscall(161, b'/tmp')"),
        ("open_tree", "syscall(428, -100, b'/', 1)"),
        ("fsopen", "syscall(430, b'tmpfs', 0)"),
        ("open_by_handle_at", "syscall(304, -100, 0, 0)"),
        ("ptrace", "syscall(101, 16, 1, 0, 0)"),
        ("process_vm_readv", "syscall(310, 1, 0, 0, 0, 0, 0)"),
        ("pidfd_getfd", "syscall(438, 0, 0, 0)"),
        ("kcmp", "syscall(312, 1, 1, 0, 0, 0)"),
        ("keyctl", "syscall(250, 0, -3, 1)"),
        ("add_key", "syscall(248, b'user', b'x', b'x', 1, -3)"),
        ("bpf", "syscall(321, 0, 0, 0)"),
        ("perf_event_open", "syscall(298, 0, 0, -1, -1, 0)"),
        ("userfaultfd", "syscall(323, 0)"),
        ("io_uring_setup", "syscall(425, 1, 0)"),
        ("kexec_load", "syscall(246, 0, 0, 0, 0)"),
        ("init_module", "syscall(175, 0, 0, b'')"),
        ("reboot", "syscall(169, 0, 0, 0, 0)"),
        ("swapon", "syscall(167, b'/', 0)"),
        ("syslog", "syscall(103, 3, 0, 0)"),
        ("settimeofday", "syscall(164, 0, 0)"),
        ("sethostname", "syscall(170, b'x', 1)"),
        ("iopl", "syscall(172, 3)"),
        ("modify_ldt", "syscall(154, 0, 0, 0)"),
        ("personality", "syscall(135, 0x0040000)"),
        ("mknod of a device", "syscall(133, b'/tmp/d', 0o60600, 0x0801)"),
        ("a call that does not exist", "syscall(999)"),
        ("clone3", "syscall(435, 0, 0)"),
        ("clone with a user namespace", "syscall(56, 0x10000000 | 17, 0, 0, 0, 0)"),
        ("vsock", "attempt(lambda: socket.socket(40, socket.SOCK_STREAM))"),
        ("packet", "attempt(lambda: socket.socket(17, socket.SOCK_RAW))"),
        ("raw", "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))"),
        ("alg", "attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET))"),
        ("sctp", "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132))"),
        ("mptcp", "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))"),
        ("netfilter's netlink", "attempt(lambda: socket.socket(16, socket.SOCK_RAW, 12))"),
        ("a family in the upper half", "syscall(41, (1 << 32) | 40, 1, 0)"),
        ("typing into a terminal", "syscall(16, 0, 0x5412, b'x')"),
        ("the same with bits in the upper half", "syscall(16, 0, (1 << 32) | 0x5412, b'x')"),
    ],
)
@X86_64
async def test_a_system_call_is_refused(runc: Cage, name: str, call: str) -> None:
    expected = "EPERM" if name not in MISSING else "ENOSYS"
    assert await ask(runc, f"answer({call})") == expected


MISSING = {
    "personality",
    "mknod of a device",
    "a call that does not exist",
    "clone3",
    "clone with a user namespace",
    "vsock",
    "packet",
    "raw",
    "alg",
    "sctp",
    "mptcp",
    "netfilter's netlink",
    "a family in the upper half",
    "typing into a terminal",
    "the same with bits in the upper half",
}
"""Those that get the filter's default: what is allowed in part, and what nobody named."""


@X86_64
async def test_the_interface_of_32_bits_is_closed(runc: Cage) -> None:
    # int 0x80 with eax = 20 (getpid of i386): bytes of machine code in memory that may be executed.
    ran = await runc.python(
        PRELUDE + "import mmap\n"
        "code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "code.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_long)(address)() > 0, flush=True)"
    )
    assert "True" not in ran.output


async def test_both_runtimes_load_the_same_filter(cage: Cage) -> None:
    kinds = "[(40, 1, 0), (17, 3, 0), (2, 3, 1), (2, 1, 132), (38, 5, 0), (16, 3, 12)]"
    assert set(await ask(cage, f"answer([attempt(lambda: socket.socket(*k)) for k in {kinds}])")) == {"ENOSYS"}
    assert await ask(cage, "answer([libc.unshare(0x10000000), libc.mount(b'/', b'/tmp', b'', 4096, None)])") == [-1, -1]
    good = "[(1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 1, 6), (2, 2, 0), (2, 2, 17), (10, 1, 0), (10, 2, 0), (16, 3, 0)]"
    assert set(await ask(cage, f"answer([attempt(lambda: socket.socket(*k)) for k in {good}])")) == {"ok"}


async def test_ids_cannot_be_changed(cage: Cage) -> None:
    calls = [
        "os.setuid(0)",
        "os.setgid(0)",
        "os.setresuid(0, 0, 0)",
        "os.setgroups([0])",
        "os.setuid(1001)",
        "os.chown('f', 0, 0)",
    ]
    program = "open('f', 'w').close()\n" + f"answer([attempt(lambda: eval(c)) for c in {calls}])"
    assert set(await ask(cage, program)) <= {"EPERM", "EINVAL"}


async def test_a_setuid_file_gives_nothing(cage: Cage) -> None:
    ran = await cage.shell(
        "cp /usr/bin/id /task/work/id && chmod 6755 id && ./id -u; /usr/bin/su -c id 2>&1 | head -1; id -u"
    )
    assert said(ran)[0] == said(ran)[-1] == "1000"


async def test_ids_capabilities_and_filter_are_as_planned(cage: Cage) -> None:
    ran = await cage.shell("id; cat /proc/self/status; cat /proc/self/uid_map; cat /proc/self/oom_score_adj")
    lines = said(ran)
    assert lines[0] == "uid=1000(script) gid=1000(script) groups=1000(script)"
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t1000\t1000\t1000\t1000", "Gid:\t1000\t1000\t1000\t1000"):
        assert line in lines
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert f"Cap{kind}:\t0000000000000000" in lines
    maps = [line.split() for line in lines if line.split()[0] in {"0", "1000"} and len(line.split()) == 3]
    assert [int(line[0]) for line in maps] == [0, 1000]
    assert all(int(line[1]) >= 1_900_000_000 and line[2] == "1" for line in maps)
    assert lines[-1] == "1000"


async def test_the_environment_is_exactly_as_planned(cage: Cage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCLUSTER_ACCESS_TOKEN", "the-secret-itself")
    ran = await cage.run("#!/usr/bin/env -S -i /usr/bin/true\n")
    assert ran.execution.status == ExitCode(0)
    ran = await cage.python(
        "print(open('/proc/self/environ').read().replace(chr(0), chr(10)), end='')",
        environment=(("LANG", "C.UTF-8"), ("TASK_ID", "forged"), ("PATH", "/usr/bin")),
    )
    assert sorted(said(ran)) == [
        "HOME=/task/home",
        "LANG=C.UTF-8",
        "PATH=/usr/bin",
        "RUN_ID=0",
        "SECUREWORKER_ARTIFACTS=/task/artifacts",
        "SECUREWORKER_TASK=/task/work/task.json",
        "TASKCLUSTER_ROOT_URL=https://tc.example.com",
        "TASK_GROUP_ID=fN1SbArXTPSVFUUvaOlinQ",
        "TASK_ID=fN1SbArXTPSVFUUvaOlinQ",
    ]


async def test_there_are_no_descriptors_but_three(cage: Cage) -> None:
    # One that the worker forgot to close on exec must not come through either.
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)  # noqa: FBT003 - the standard library's
    try:
        program = (
            "import stat\n"
            "answer([[n, stat.S_IFMT(os.fstat(n).st_mode)] for n in range(64) if attempt(lambda: os.fstat(n)) == 'ok'])"
        )
        found = await ask(cage, program)
    finally:
        os.close(reading)
        os.close(writing)
    # Python has its own script open while it runs it.
    assert [number for number, _ in found if number < 3] == [0, 1, 2]
    assert found[1][1] == found[2][1] == stat.S_IFIFO
    ran = await cage.shell("ls /proc/self/fd | tr '\\n' ' '")
    # ls itself opens the directory.
    assert ran.output in {"0 1 2 3 ", "0 1 10 2 3 "}


async def test_standard_input_is_empty(cage: Cage) -> None:
    assert (await cage.shell("cat; readlink /proc/self/fd/0")).output == "/dev/null\n"


async def test_nothing_but_the_tasks_own_can_be_written(cage: Cage) -> None:
    places = [
        "/x",
        "/usr/x",
        "/usr/local/x",
        "/etc/x",
        "/etc/passwd",
        "/etc/ssl/certs/x",
        "/dev/x",
        "/proc/x",
        "/task/x",
        "/task/config.json",
    ]
    answers = await ask(
        cage, f"answer([attempt(lambda: os.open(p, os.O_CREAT | os.O_WRONLY)) for p in {places}])", config={}
    )
    assert set(answers) <= {"EROFS", "EACCES", "ENOENT", "EPERM"}
    good = ["/task/work/x", "/task/artifacts/x", "/task/artifacts/public/x", "/task/home/x", "/tmp/x", "/dev/shm/x"]
    assert set(await ask(cage, f"answer([attempt(lambda: os.open(p, os.O_CREAT | os.O_WRONLY)) for p in {good}])")) == {
        "ok"
    }


async def test_the_script_cannot_change_itself_or_where_outputs_are_taken_from(cage: Cage) -> None:
    program = (
        "answer([attempt(lambda: open(sys.argv[0], 'a')), attempt(lambda: os.rename('/task/artifacts', '/task/y')),"
        " attempt(lambda: os.symlink('/etc', '/task/artifacts2')), attempt(lambda: os.chmod('/task', 0o777))])"
    )
    answers = await ask(cage, program)
    assert set(answers) <= {"EROFS", "EACCES", "EPERM"}


async def test_mounts_are_read_only_and_without_privileges(cage: Cage) -> None:
    ran = await cage.shell("cat /proc/self/mountinfo")
    for line in said(ran):
        target, options = line.split()[4:6]
        flags = set(options.split(","))
        if target.startswith("/dev/") and target != "/dev/shm":
            continue
        assert "ro" in flags or target in {"/dev", "/dev/shm", "/proc", "/task", "/tmp"}, line
        assert "nosuid" in flags or target == "/", line
        assert "nodev" in flags or target in {"/", "/dev"}, line


async def test_devices_are_the_harmless_ones(cage: Cage) -> None:
    ran = await cage.shell("ls /dev; test -e /dev/pts || echo no-pts")
    # crun adds `core`, a link to /proc/kcore, which is not there.
    expected = "fd full null ptmx random shm stderr stdin stdout tty urandom zero no-pts"
    assert [name for name in said(ran) if name != "core"] == expected.split()


async def test_the_hosts_loopback_is_another(cage: Cage) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as tcp6,
    ):
        answers = await ask(
            cage,
            f"answer([attempt(lambda: socket.create_connection(('127.0.0.1', {tcp.getsockname()[1]}), 2)),"
            f" attempt(lambda: socket.create_connection(('::1', {tcp6.getsockname()[1]}), 2))])",
        )
    assert answers == ["ECONNREFUSED", "ECONNREFUSED"]


async def test_a_server_of_the_script_can_be_reached_by_the_script(cage: Cage) -> None:
    program = (
        "s = socket.create_server(('127.0.0.1', 0))\nanswer(attempt(lambda: socket.create_connection(s.getsockname())))"
    )
    assert await ask(cage, program) == "ok"


async def test_there_is_no_way_out_by_the_network(cage: Cage) -> None:
    hosts = ["169.254.169.254", "10.0.0.1", "192.0.2.1", "8.8.8.8", "fd00:ec2::254", "2001:db8::1"]
    answers = await ask(cage, f"answer([attempt(lambda: socket.create_connection((h, 80), 2)) for h in {hosts}])")
    assert set(answers) <= {"ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH"}
    ran = await cage.shell(
        "ls /proc/self/net 2>/dev/null | head -1; getent hosts example.com; getent hosts taskcluster"
    )
    assert said(ran)[-1].split() == ["127.0.0.1", "localhost", "taskcluster"]
    assert "example.com" not in ran.output


async def test_abstract_sockets_of_the_host_are_not_there(cage: Cage) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0secureworker-escape")
        unix.listen()
        program = "s = socket.socket(socket.AF_UNIX)\nanswer(attempt(lambda: s.connect('\\0secureworker-escape')))"
        assert await ask(cage, program) == "ECONNREFUSED"


async def test_control_groups_are_out_of_reach(cage: Cage) -> None:
    ran = await cage.shell(
        "cat /proc/self/cgroup; ls -d /sys/fs/cgroup; find / -xdev -name 'cgroup.procs' 2>/dev/null | head -1"
    )
    assert all(line.endswith(":/") for line in said(ran) if line[0].isdigit())
    assert "cgroup.procs" not in ran.output


async def test_kernel_settings_are_out_of_reach(cage: Cage) -> None:
    paths = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/kcore",
        "/proc/kallsyms",
        "/proc/keys",
        "/proc/timer_list",
    ]
    assert set(await ask(cage, f"answer([attempt(lambda: open(p)) for p in {paths}])")) == {"ENOENT"}


async def test_what_one_run_leaves_the_next_does_not_find(cage: Cage) -> None:
    left = "echo x > /tmp/left; echo x > /dev/shm/left; echo x > ~/left; echo x > left; echo x > /task/artifacts/left"
    assert (await cage.shell(left)).execution.status == ExitCode(0)
    ran = await cage.shell("find /tmp /dev/shm ~ /task -name left; ls -A /tmp /dev/shm")
    assert "left" not in ran.output.replace("/tmp:", "").replace("/dev/shm:", "")


async def test_shared_memory_and_queues_do_not_outlive_the_run(cage: Cage) -> None:
    before = Path("/proc/sysvipc/shm").read_text()
    assert await ask(cage, "answer(libc.shmget(4711, 4096, 0o1666) >= 0)") is True
    assert await ask(cage, "answer(libc.shmget(4711, 0, 0))") == -1
    assert Path("/proc/sysvipc/shm").read_text() == before


async def test_nothing_is_left_on_the_host(cage: Cage) -> None:
    def state() -> tuple[Any, ...]:
        return (
            own_mounts(cage.directory),
            sorted(os.listdir("/proc/self/fd")),
            groups_of(cage.directory),
            sorted(str(path) for path in cage_home(cage).rglob("*")),
        )

    await cage.shell("exit 0")
    before = state()
    await cage.shell("setsid -f sleep 98770; mkdir -p a/b; touch /tmp/x; exit 3")
    await cage.python("x = b'x' * (1 << 30)", limits=some_limits(memory_bytes=32 << 20))
    assert state() == before


def cage_home(cage: Cage) -> Path:
    return Path("/run/secureworker") / cage_name(cage)


def cage_name(cage: Cage) -> str:
    return instance_name(str(cage.directory))


async def test_a_mount_of_the_policy_does_not_carry_devices_or_setuid(cage: Cage) -> None:
    source = cage.directory / "mounted"
    source.mkdir()
    (source / "id").write_bytes(Path("/usr/bin/id").read_bytes())
    (source / "id").chmod(0o4755)
    os.mknod(source / "disk", 0o666 | stat.S_IFBLK, os.makedev(254, 0))
    (source / "disk").chmod(0o666)
    ran = await cage.shell(
        "/data/id -u; head -c 1 /data/disk | wc -c", mounts=(Mount(str(source), "/data", read_only=False),)
    )
    assert said(ran)[0] == "1000"
    assert "Permission denied" in ran.output
