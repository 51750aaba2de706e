"""What release scripts do, and must go on working (edge-cases.md, 14). Tools that are not installed are skipped."""

import shutil

import pytest

from secureworker.core.outcome import ExitCode
from tests.sandbox.cage import MIB, Cage, some_limits

pytestmark = pytest.mark.sandbox

USES = {
    "git": "git init -q r && cd r && git config user.email a@b && git config user.name a && echo x > f && git add f && "
    "git commit -qm m && git clone -q . ../s && git -C ../s log --oneline | grep -c m",
    "curl": "echo content > f; python3 -m http.server --bind 127.0.0.1 8001 >/dev/null 2>&1 & "
    "for i in 1 2 3 4 5 6 7 8 9; do curl -sf http://127.0.0.1:8001/f && exit 0; sleep 0.2; done; exit 1",
    "gpg": "gpg --batch --quiet --passphrase '' --quick-gen-key a@b ed25519 sign never 2>&1 && echo x > f && "
    "gpg --batch --quiet --yes -b f && gpg --quiet --verify f.sig f 2>&1 && gpgconf --kill all",
    "tar": "mkdir d && echo x > d/f && ln -s f d/l && tar czf d.tgz d && rm -r d && tar xzf d.tgz && cat d/l",
    "openssl": "openssl genpkey -algorithm ed25519 -out k && openssl req -x509 -new -key k -subj /CN=x -out c && "
    "echo x > f && openssl pkeyutl -sign -rawin -inkey k -in f -out s && "
    "openssl pkeyutl -verify -rawin -certin -inkey c -in f -sigfile s",
    "ssh-keygen": "ssh-keygen -q -t ed25519 -N '' -f k && echo x > f && ssh-keygen -q -Y sign -f k -n file f && "
    "ssh-keygen -Y check-novalidate -n file -s f.sig < f",
    "perl": "perl -MSocket -MFile::Temp=tempfile -e 'my ($h, $n) = tempfile(); print $h \"x\"; close $h; print -s $n'",
    "node": 'node -e \'require("fs").writeFileSync("f", "x"); setTimeout(() => console.log("done"), 10)\'',
    "jq": "jq -r .payload.a task.json",
    "xz": "head -c 1000000 /dev/zero | xz -T2 | xz -d | wc -c",
    "awk": "echo 1 2 | awk '{print $2}'",
    "make": "printf 'all: a b\\na b:\\n\\techo $@ > $@\\n' > Makefile && make -s -j4 && cat a b",
    "gcc": "echo 'int main(void) { return 7; }' > a.c && gcc -o a a.c && { ./a || test $? = 7; }",
    "bash": "bash -c 'diff <(echo x) <(echo x) && exec 5<>/tmp/x && mkfifo p && (echo y > p &) && cat p'",
}


@pytest.mark.parametrize("tool", sorted(USES))
async def test_a_tool_of_release_scripts_works(runc: Cage, tool: str) -> None:
    if shutil.which(tool, path="/usr/bin") is None:
        pytest.skip(f"{tool} is not installed")
    ran = await runc.shell(f"set -e\n{USES[tool]}", limits=some_limits(memory_bytes=512 * MIB, processes=128))
    assert ran.execution.status == ExitCode(0), ran.output


PROGRAMS = {
    "multiprocessing": "import multiprocessing\n"
    "if __name__ == '__main__':\n"
    "    with multiprocessing.Pool(4) as pool:\n"
    "        assert pool.map(abs, range(-100, 0)) == list(range(100, 0, -1))\n"
    "    with multiprocessing.Manager() as manager:\n"
    "        manager.dict()['x'] = 1",
    "threads": "import concurrent.futures as f\n"
    "with f.ThreadPoolExecutor(16) as pool:\n"
    "    assert sum(pool.map(lambda x: x, range(100))) == 4950",
    "asyncio": "import asyncio\n"
    "async def main():\n"
    "    p = await asyncio.create_subprocess_exec('/bin/echo', 'x', stdout=-1)\n"
    "    assert (await p.communicate())[0] == b'x\\n'\n"
    "asyncio.run(main())",
    "sqlite": "import sqlite3\n"
    "c = sqlite3.connect('db'); c.execute('pragma journal_mode=wal'); c.execute('create table t (x)')\n"
    "c.execute('insert into t values (1)'); c.commit()\n"
    "assert sqlite3.connect('db').execute('select * from t').fetchall() == [(1,)]",
    "tempfile": "import shutil, tempfile, pathlib\n"
    "d = tempfile.mkdtemp(); pathlib.Path(d, 'f').write_text('x'); shutil.copytree(d, 'copy')\n"
    "shutil.move('copy', '/task/artifacts/moved'); assert pathlib.Path.home() == pathlib.Path('/task/home')",
    "tls": "import ssl\nassert ssl.create_default_context().cert_store_stats()['x509_ca'] > 10",
    "users": "import getpass, os, pwd\nassert getpass.getuser() == 'script'\n"
    "assert pwd.getpwuid(os.getuid()).pw_dir == '/task/home'",
    "sockets": "import socket\na, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n"
    "assert socket.getaddrinfo('localhost', 80)",
    "locks": "import fcntl\nwith open('l', 'w') as f: fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX)",
}


@pytest.mark.parametrize("program", sorted(PROGRAMS))
async def test_python_does_what_scripts_need(cage: Cage, program: str) -> None:
    ran = await cage.python(PROGRAMS[program])
    assert ran.execution.status == ExitCode(0), ran.output
