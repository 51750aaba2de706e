"""Usual clients in the real sandbox, through the egress door, at TLS servers of the test's own."""

import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.core.doors import Destination, Doors
from tests.proxy.caged import DoorCage, Result, a_door_cage, npm_modules, python
from tests.proxy.harness import Authority, RunWith, internal

pytestmark = pytest.mark.sandbox


@dataclass
class Site:
    """A TLS server with files, and scripts in the sandbox that may reach it."""

    cage: DoorCage
    authority: Authority
    port: int
    asked: list[str]

    @property
    def url(self) -> str:
        return f"https://files.test:{self.port}"

    async def script(self, text: str, *more: Destination, **changes: Any) -> Result:
        return await self.cage.run(
            text,
            Doors(destinations=(internal("files.test", self.port), *more)),
            run=RunWith("me", "k" * 44),
            root_url="https://taskcluster.invalid",
            authority=self.authority,
            **changes,
        )


@pytest.fixture
async def site(authority: Authority, tmp_path: Path) -> AsyncIterator[Site]:
    asked: list[str] = []

    @web.middleware
    async def keep(request: web.Request, handler: Any) -> web.StreamResponse:
        asked.append(request.path)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def package(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "name": "a-package",
                "dist-tags": {"latest": "1.2.3"},
                "versions": {"1.2.3": {"name": "a-package", "version": "1.2.3"}},
            }
        )

    application = web.Application(middlewares=[keep])
    application.router.add_get("/a-package", package)
    application.router.add_static("/files", tmp_path)
    server = TestServer(application, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=authority.server("files.test"))
    assert server.port is not None
    (tmp_path / "a.txt").write_text("the content of a file\n")
    async with a_door_cage() as cage:
        cage.names["files.test"] = "127.0.0.1"
        yield Site(cage, authority, server.port, asked)
    await server.close()


async def test_curl_fetches_from_the_host_that_is_named_and_from_no_other(site: Site) -> None:
    result = await site.script(
        f"""#!/bin/sh
curl -sS {site.url}/files/a.txt
for url in https://elsewhere.test https://files.test:444 https://169.254.169.254 http://files.test:{site.port}/ \\
    https://127.0.0.1.nip.test https://[::1]:443
do curl -sS -o /dev/null -w "$url %{{http_connect}} %{{http_code}}\\n" $url 2>/dev/null
done
curl -sS --noproxy '*' https://files.test:{site.port}/ 2>&1
curl -sS --noproxy '*' http://1.1.1.1/ 2>&1
curl -sS --connect-to files.test:{site.port}:elsewhere.test:443 {site.url}/files/a.txt 2>&1 | grep -o 'response 403'
"""
    )
    lines = result.output.splitlines()
    assert lines[0] == "the content of a file"
    assert [line.split()[1:] for line in lines[1:7]] == [
        ["403", "000"], ["403", "000"], ["403", "000"], ["000", "403"], ["403", "000"], ["403", "000"],
    ]  # fmt: skip
    assert "Could not resolve host" in lines[7]
    assert "Couldn't connect" in lines[8] or "Failed to connect" in lines[8]
    assert lines[9] == "response 403"
    assert len(result.notes) == 6
    (traffic,) = result.traffic
    assert (traffic.destination, traffic.connections) == (f"files.test:{site.port}", 1)
    assert site.asked == ["/files/a.txt"]


async def test_requests_and_aiohttp_fetch_through_the_proxy(site: Site) -> None:
    result = await site.script(
        python(
            f"""
import asyncio, aiohttp, requests
url = "{site.url}/files/a.txt"
print(requests.get(url, timeout=20).text.strip())
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as answer:
        print((await answer.text()).strip())
asyncio.run(main())
try:
    requests.get("https://elsewhere.test/", timeout=20)
except requests.exceptions.ProxyError as error:
    print("403" in str(error))
"""
        )
    )
    assert result.succeeded().splitlines() == ["the content of a file"] * 2 + ["True"]
    assert result.traffic[0].connections == 2


async def test_git_clones_over_https(site: Site, tmp_path: Path) -> None:
    def git(*arguments: str, at: Path) -> None:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=at, check=True, capture_output=True)

    source = tmp_path / "source"
    source.mkdir()
    git("init", "--quiet", at=source)
    (source / "README").write_text("a repository\n")
    git("add", "README", at=source)
    git("commit", "--quiet", "-m", "Begin", at=source)
    git("clone", "--quiet", "--bare", "source", "repository.git", at=tmp_path)
    git("update-server-info", at=tmp_path / "repository.git")
    result = await site.script(
        f"#!/bin/sh -e\ngit clone --quiet {site.url}/files/repository.git clone\ncat clone/README\n"
        "! git clone --quiet https://elsewhere.test/x.git other",
        environment={"GIT_SSL_CAINFO": "/opt/authority/ca.pem"},
    )
    assert "a repository" in result.succeeded()
    assert "403" in result.output
    assert [note.split()[3] for note in result.notes] == ["elsewhere.test:443:"]


async def test_npm_asks_a_registry_through_the_proxy(site: Site) -> None:
    npm_modules()  # skips where there is none
    result = await site.script(
        f"#!/bin/sh\nexport npm_config_update_notifier=false npm_config_fetch_retries=0\n"
        f"npm view --registry {site.url}/ a-package version 2>&1\n"
        "npm view --registry https://elsewhere.test/ a-package version >/dev/null 2>&1 || echo refused",
    )
    assert result.succeeded().splitlines()[-2:] == ["1.2.3", "refused"]
    assert "/a-package" in site.asked


async def test_the_ports_of_the_doors_cannot_be_taken_over(site: Site) -> None:
    result = await site.script(
        python(
            """
import errno, os, socket
for port in (80, 3128):
    for reuse in (0, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        with socket.socket() as mine:
            if reuse:
                mine.setsockopt(socket.SOL_SOCKET, reuse, 1)
            try:
                mine.bind(("127.0.0.1", port))
                mine.listen()
                print("got", port)
            except OSError as error:
                print(errno.errorcode[error.errno])
with socket.create_server(("127.0.0.1", 0)) as mine:
    print("others are free")
print(len(os.listdir("/proc/self/fd")))
"""
        )
    )
    assert result.succeeded().splitlines() == ["EACCES"] * 3 + ["EADDRINUSE"] * 3 + ["others are free", "4"]


async def test_another_tasks_doors_are_out_of_reach(site: Site) -> None:
    """A run without doors, while another one's are open: the same address is another place."""
    async with a_door_cage("runc") as other:
        result = await other.run(
            "#!/bin/sh\ncurl -sS http://127.0.0.1:3128/ 2>&1; curl -sS http://taskcluster/ 2>&1; env | grep -i proxy",
            Doors(),
            run=RunWith("me", "k" * 44),
            root_url="https://taskcluster.invalid",
        )
    assert result.output.count("Failed to connect") == 2
    assert "_proxy" not in result.output.lower()


async def test_the_environment_tells_of_the_doors(site: Site) -> None:
    result = await site.script("#!/bin/sh\nenv | grep -i proxy | sort")
    assert result.succeeded().splitlines() == [
        "HTTPS_PROXY=http://127.0.0.1:3128",
        "HTTP_PROXY=http://127.0.0.1:3128",
        "NO_PROXY=127.0.0.1,localhost,taskcluster",
        "http_proxy=http://127.0.0.1:3128",
        "https_proxy=http://127.0.0.1:3128",
        "no_proxy=127.0.0.1,localhost,taskcluster",
    ]
