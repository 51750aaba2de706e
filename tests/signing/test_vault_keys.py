"""Keys in a Vault, over real HTTP with real Ed25519: one that signs, and everything else that may answer."""

import asyncio
import base64
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secureworker.core.audit import AuditRecord, Event
from secureworker.core.errors import HostError, KeyUnusable
from secureworker.signing.client import child_signer, connected_signer
from secureworker.signing.keyuris import files_of, load_key
from secureworker.signing.vault import open_key
from secureworker.signing.verify import Expected, verify_directory
from secureworker.testing import IDENTITY, an_artifact
from tests.signing.conftest import write
from tests.signing.served import a_statement, records, settings_for
from tests.signing.vault_server import TOKEN, VaultServer, answer

URI = "hv:release/1"
MESSAGE = b"what is to be signed"


@pytest.fixture
def vault() -> Iterator[VaultServer]:
    with VaultServer() as served:
        yield served


def why(vault: VaultServer, uri: str = URI, **environ: str) -> str:
    with pytest.raises(KeyUnusable) as caught:
        load_key(uri, {**vault.environ, **environ})
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_a_key_in_a_vault_signs_and_stays_there(vault: VaultServer) -> None:
    key = load_key(URI, vault.environ)

    assert key.public == vault.public()
    assert vault.public().verifies(key.sign(MESSAGE), MESSAGE)
    assert repr(key) == f"VaultKey({key.public.fingerprint})"
    assert files_of(URI) == ()
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)


def test_the_version_that_is_named_is_the_one_that_signs(vault: VaultServer) -> None:
    vault.versions.append(Ed25519PrivateKey.generate())

    for version in (1, 2):
        key = load_key(f"hv:release/{version}", vault.environ)
        assert key.public == vault.public(version)
        assert vault.public(version).verifies(key.sign(MESSAGE), MESSAGE)
    assert "version 3 of the key release cannot be read" in why(vault, "hv:release/3")


@pytest.mark.parametrize(
    "uri",
    ["hv:release", "hv:release/", "hv:release/0", "hv:a/b/1", "hv:../1", "hv:./1", "hv:../x/1", "hv:/1", "hv:a/1?x"],
)
def test_a_uri_of_another_form_is_refused(vault: VaultServer, uri: str) -> None:
    assert "hv:NAME/VERSION is expected" in why(vault, uri)


def test_a_key_of_another_kind_is_refused(vault: VaultServer) -> None:
    for kind, derived in (("ecdsa-p256", False), ("rsa-2048", False), ("ed25519", True)):
        vault.kind, vault.derived = kind, derived
        assert "an Ed25519 key is needed" in why(vault)


def test_a_vault_that_does_not_let_us_is_said_to(vault: VaultServer) -> None:
    assert "Forbidden; is VAULT_ADDR right, may the token read" in why(vault, VAULT_TOKEN="hvs.another")
    assert "Forbidden" in why(vault, VAULT_TOKEN="")
    assert "InvalidPath" in why(vault, "hv:other/1")


def test_a_vault_is_named_and_spoken_to_in_private(vault: VaultServer) -> None:
    assert "needs VAULT_ADDR" in why(vault, VAULT_ADDR="")
    assert "names vault.example.com without TLS" in why(vault, VAULT_ADDR="http://vault.example.com:8200")
    assert "names 192.0.2.1 without TLS" in why(vault, VAULT_ADDR="http://192.0.2.1:8200")
    assert "cannot be read from the Vault: ConnectionError" in why(vault, VAULT_ADDR="http://localhost:1")


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"data": {"type": "ed25519", "keys": {"1": {"public_key": "AAAA"}}}}'),
        (200, b'{"data": {"type": "ed25519", "keys": {"1": {"public_key": "!"}}}}'),
        (200, b'{"data": {"type": "ed25519", "keys": []}}'),
        (500, b"{}"),
        (503, b'{"errors": ["Vault is sealed"]}'),
        (200, b'{"a": "' + bytes([97]) * 2_000_000 + b'"}'),
    ],
)
def test_what_is_no_answer_about_a_key_is_none(vault: VaultServer, status: int, content: bytes) -> None:
    vault.instead = lambda request: answer(request, status, content)

    assert "cannot be read from the Vault" in why(vault)


def test_a_token_does_not_follow_a_redirect(vault: VaultServer) -> None:
    with VaultServer() as elsewhere:
        seen: list[str | None] = []

        def listen(request: BaseHTTPRequestHandler) -> None:
            seen.append(request.headers.get("X-Vault-Token"))
            answer(request, 200, {})

        elsewhere.instead = listen
        vault.instead = lambda request: answer(request, 307, {}, (("Location", elsewhere.url + request.path),))

        assert "cannot be read" in why(vault)
        assert seen == []


def test_no_proxy_of_the_environment_is_used(vault: VaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")

    assert load_key(URI, vault.environ).public == vault.public()


@pytest.mark.parametrize("signs", ["with another key", "something else", "too short", "not at all", "nonsense"])
def test_a_vault_that_signs_wrongly_is_not_used(vault: VaultServer, signs: str) -> None:
    def sign(request: BaseHTTPRequestHandler) -> None:
        signature = {
            "with another key": Ed25519PrivateKey.generate().sign(b""),
            "something else": vault.versions[0].sign(b"something else"),
            "too short": bytes(63),
        }.get(signs, b"")
        status = 500 if signs == "not at all" else 200
        text = "nonsense" if signs == "nonsense" else f"vault:v1:{base64.b64encode(signature).decode()}"
        answer(request, status, {"data": {"signature": text}})

    vault.instead, vault.only_instead_of = sign, "/sign/"

    said = why(vault)
    assert "is no Ed25519 signature by its key" in said or "the Vault does not sign" in said


def test_a_vault_that_does_not_answer_is_not_waited_for(vault: VaultServer) -> None:
    done = threading.Event()
    vault.instead = lambda _: done.wait(20) and None  # type: ignore[assignment]  # never answers

    try:
        with pytest.raises(KeyUnusable, match="cannot be read from the Vault: ReadTimeout"):
            open_key(URI, vault.environ, seconds=0.1)
    finally:
        done.set()


def test_other_key_services_are_refused_with_the_reason() -> None:
    for uri in ("awskms:arn:aws:kms:eu-1:1:key/2", "gcpkms:projects/p", "azurekms:vault.azure.net/keys/k/1"):
        with pytest.raises(KeyUnusable, match=r"no Ed25519.*hv:NAME/VERSION"):
            load_key(uri, {})


# The signer


async def test_a_signer_of_its_own_signs_and_keeps_its_log_with_a_key_in_a_vault(
    vault: VaultServer, tmp_path: Path
) -> None:
    config, path = tmp_path / "signer.yml", tmp_path / "socket"
    config.write_text(json.dumps(settings_for(tmp_path, key=URI, socket=str(path), user=os.geteuid())))
    argv = [sys.executable, "-m", "secureworker", "signer", "--config", str(config)]
    process = subprocess.Popen(argv, env={**os.environ, **vault.environ})
    try:
        async with asyncio.timeout(30):
            while not answers(path):  # noqa: ASYNC110 - a foreign process, without an event for us
                await asyncio.sleep(0.02)
        async with connected_signer(str(path), IDENTITY) as signer:
            assert signer.public_key == vault.public()
            write(tmp_path / "run", await signer.sign(a_statement(an_artifact("public/a.txt", b"content"))))
            # A Vault that is away for a while: nothing is signed, and nothing is lost.
            vault.instead = lambda request: answer(request, 503, {"errors": ["Vault is sealed"]})
            with pytest.raises(KeyUnusable, match="the Vault does not sign: VaultDown"):
                await signer.append(AuditRecord(Event.WORKER_START))
            vault.instead = None
            await signer.append(AuditRecord(Event.WORKER_STOP))
    finally:
        process.terminate()
        assert process.wait(10) == 0

    (tmp_path / "run" / "public" / "a.txt").write_bytes(b"content")
    assert verify_directory(str(tmp_path / "run"), vault.public(), Expected()).verified
    events = [record.event.value for record in records(tmp_path)]
    assert events == ["signer-start", "key-load", "signature", "worker-stop", "signer-stop"]


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(path)) == 0


async def test_a_workers_own_signer_does_not_get_a_key_of_a_vault(vault: VaultServer, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="a key in a Vault needs a signer of its own"):
        async with child_signer(settings_for(tmp_path, key=URI), IDENTITY):
            pass
