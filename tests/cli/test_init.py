"""`secureworker init`: what a host begins with."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from secureworker.cli.main import cli
from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.policyfile import load
from secureworker.signer import read_settings
from secureworker.signing.keys import load_signing_key
from secureworker.starter import host, plan, texts

WHERE = ("--root-url", "https://tc.example.com", "--worker-pool", "releng-hardened/release")
WHO = ("--worker-group", "dc1", "--worker-id", "signer-1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory for settings that others cannot write."""
    tmp_path.chmod(0o755)
    return tmp_path / "etc"


def init(place: Path, *more: str) -> Result:
    state = ("--state-dir", str(place.parent / "state"))
    return CliRunner().invoke(cli, ["init", *WHERE, *WHO, "--directory", str(place), *state, *more])


def script(directory: Path, name: str) -> Path:
    path = directory / name
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return path


def variables(place: Path) -> dict[str, str]:
    lines = (place / "worker.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def modes(place: Path) -> dict[str, str]:
    return {
        str(path.relative_to(place)): f"{stat.S_IMODE(path.stat().st_mode):04o}"
        for path in place.rglob("*")
        if path.is_file()
    }


@pytest.mark.sandbox
def test_what_is_written_is_valid_and_the_next_steps_name_the_scopes_and_where_credentials_go(place: Path) -> None:
    done = init(place, "--no-units")

    assert done.exit_code == 0, done.output
    policy = load(str(place / "policy.yml"))
    assert (policy.root_url, str(policy.worker_pool)) == ("https://tc.example.com", "releng-hardened/release")
    assert "queue:claim-work:releng-hardened/release queue:worker-id:dc1/signer-1" in done.output
    assert f"install -m 0600 /dev/stdin {place}/taskcluster.json" in done.output
    assert "The policy is valid, and this host can sandbox scripts." in done.output
    assert f"(set -a; . {place}/worker.env; exec {host.program()} run)" in done.output
    assert f"{host.program()} keys show {place}/signing.key.pub" in done.output
    assert "accessToken" not in (place / "worker.env").read_text()


@pytest.mark.sandbox
def test_a_key_is_its_owners_alone_and_the_rest_can_be_read_and_not_be_changed(place: Path) -> None:
    mask = os.umask(0o077)
    try:
        init(place, "--no-units")
    finally:
        os.umask(mask)

    assert modes(place) == {
        "policy.yml": "0644",
        "scripts/hello": "0755",
        "signing.key": "0400",
        "signing.key.pub": "0444",
        "worker.env": "0644",
    }
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place, place / "scripts")] == [0o755, 0o755]
    assert stat.S_IMODE((place.parent / "state").stat().st_mode) == 0o711
    load_signing_key(f"file:{place}/signing.key")


def test_nothing_is_overwritten_and_nothing_else_is_written_either(place: Path) -> None:
    place.mkdir()
    (place / "worker.env").write_text("mine\n")
    (place / "signing.key.pub").symlink_to("nowhere")

    done = init(place, "--no-units")

    assert done.exit_code == 2
    assert f"there already: {place}/worker.env, {place}/signing.key.pub; nothing was written" in done.output
    assert {path.name for path in place.iterdir()} == {"worker.env", "signing.key.pub"}
    assert (place / "worker.env").read_text() == "mine\n"


def test_a_dry_run_shows_everything_but_a_key_and_writes_nothing(place: Path) -> None:
    done = init(place, "--units", str(place / "units"), "--dry-run")

    assert done.exit_code == 0, done.output
    assert not place.exists()
    for name in ("policy.yml", "worker.env", "signing.key", "signer.yml", "units/secureworker.service"):
        assert f"### {place}/{name} (" in done.output
    assert done.output.endswith("Nothing was written.\n")


def test_a_dry_run_as_json_is_one_object(place: Path) -> None:
    told = json.loads(init(place, "--no-units", "--dry-run", "--json").output)

    files = {file["what"]: file for file in told["files"]}
    assert told["written"] == []
    assert files["signing key"]["content"] is None
    assert files["settings"]["content"].startswith("# Settings of `secureworker run`")


def test_units_name_this_program_and_these_directories(place: Path) -> None:
    done = init(place, "--units", str(place / "units"), "--json")

    told = json.loads(done.output)
    worker = (place / "units" / "secureworker.service").read_text()
    signer = (place / "units" / "secureworker-signer.service").read_text()
    assert f"ExecStart={host.program()} run\n" in worker
    assert f"EnvironmentFile={place}/worker.env\n" in worker
    assert f"LoadCredential=taskcluster:{place}/taskcluster.json\n" in worker
    assert f"ReadWritePaths={place.parent}/state\n" in worker
    assert "\nStateDirectory=" not in worker
    assert f"LoadCredential=signing:{place}/signing.key\n" in signer
    assert "StateDirectory=secureworker-signer\n" in signer
    for text in (worker, signer):
        assert "/opt/secureworker" not in text
        assert "/etc/secureworker" not in text
    assert told["check"] == []
    assert told["scopes"] == ["queue:claim-work:releng-hardened/release", "queue:worker-id:dc1/signer-1"]
    assert any("enable --now" in step["command"] for step in told["next"])


def test_the_signers_settings_are_those_of_the_worker(place: Path) -> None:
    init(place, "--units", str(place / "units"))

    settings = read_settings((place / "signer.yml").read_bytes(), "signer.yml")
    assert str(settings.bounds.worker) == "releng-hardened/release/dc1/signer-1"
    assert settings.bounds.root_url == "https://tc.example.com"
    assert variables(place)["SECUREWORKER_SIGNER"] == f"unix:{settings.socket}"
    assert settings.key == "credential:signing"


def test_units_that_a_package_brought_are_left_alone(place: Path) -> None:
    identity = _worker(place)
    packaged = place / "packaged"
    packaged.mkdir(parents=True)
    (packaged / "unit").write_bytes(plan.unit("secureworker.service", identity))

    assert host.same_file(str(packaged / "unit"), plan.unit("secureworker.service", identity))
    assert not host.same_file(str(packaged / "unit"), b"[Unit]\n")
    assert not host.same_file(str(packaged / "none"), b"")


def _worker(place: Path) -> texts.Worker:
    identity = WorkerIdentity(WorkerPool("releng-hardened", "release"), "dc1", "signer-1")
    return texts.Worker(identity, "https://tc.example.com", str(place), "/var/lib/secureworker", units=True)


def test_without_a_directory_of_their_own_units_go_where_systemd_looks(place: Path) -> None:
    planned = plan.plan(_worker(place), texts.Admits(("-",), ("none",)), ())

    written = {file.path for file in planned.files} | set(planned.installed)
    assert any(path.endswith("/systemd/system/secureworker.service") for path in written)
    assert any("/sysusers.d/" in path for path in written)


def test_several_scripts_are_chosen_by_the_payload(place: Path, tmp_path: Path) -> None:
    one, two = script(tmp_path, "sign.sh"), script(tmp_path, "Push_it")

    init(place, "--no-units", "--script", str(one), "--script", str(two), "--scope", "project:x:*", "--project-id", "x")

    policy = load(str(place / "policy.yml"))
    assert [str(rule.name) for rule in policy.scripts] == ["sign", "push-it"]
    text = (place / "policy.yml").read_text()
    assert "when: {payload-field: script, equals: push-it}" in text
    assert 'allow: ["project:x:*"]' in text
    assert not (place / "scripts").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--script", "/nowhere/script"), "cannot be read"),
        (("--script", "/etc/passwd"), "is not executable"),
        (("--script", "/usr/bin/..."), "rename the file"),
        (("--script", "/usr/bin/env", "--script", "/bin/env"), "two scripts would be called env"),
        (("--script", "/usr/bin/[ x"), "use a path of letters"),
        (("--worker-pool", "nonsense"), "is no worker pool"),
        (("--worker-id", "a b"), "is no worker id"),
        (("--units", "/x", "--no-units"), "do not go together"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(
    place: Path, tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    if more[-1] == "/usr/bin/...":
        more = ("--script", str(script(tmp_path, "...")))

    done = init(place, "--no-units", *more)

    assert done.exit_code == 2, done.output
    assert says in done.output
    assert not place.exists()


def test_a_directory_that_cannot_be_written_is_named_and_so_is_what_was_written_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files = (plan.File(f"{tmp_path}/a/b", "x", b"x"), plan.File(f"{tmp_path}/file/c", "x", b"x"))

    with pytest.raises(Exception, match=rf"written before it, and still there: {tmp_path}/a/b"):
        plan.write(plan.Planned(files, ()))


def test_a_policy_that_is_not_valid_is_said_with_its_lines(tmp_path: Path, place: Path) -> None:
    # A script that others could change: what `check` finds, `init` says.
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    done = init(place, "--no-units", "--script", str(script(open_to_all, "sign")))

    assert done.exit_code == 1
    assert "The policy is not valid:" in done.output
    assert "may be written by everybody" in done.output


@pytest.mark.parametrize(
    ("hostname", "full", "names"),
    [
        ("signer-1.dc1.example.com", "signer-1.dc1.example.com", ("dc1", "signer-1")),
        ("signer-1", "signer-1.dc1.example.com", ("dc1", "signer-1")),
        ("signer-1", "signer-1", ("hosts", "signer-1")),
        ("signer-1", "localhost.localdomain", ("hosts", "signer-1")),
        ("a" * 60, "b", ("hosts", "a" * 38)),
        ("höst_1", "", ("hosts", "h-st_1")),
        ("...", "", ("hosts", "worker")),
    ],
)
def test_a_hosts_name_gives_a_worker_id_that_the_queue_takes(hostname: str, full: str, names: Any) -> None:
    assert host.names_of(hostname, full) == names


def test_a_path_is_replaced_as_a_whole() -> None:
    text = "/etc/a /etc/a/b /etc/a-b /etc/ab"

    assert host.replaced(text, {"/etc/a": "/x", "/etc/a/b": "/y"}) == "/x /y /etc/a-b /etc/ab"
