"""`secureworker verify` by a trust file, for bundles, and for tasks of a deployment."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from secureworker.cli.schema import command as schema
from secureworker.cli.verify import command
from secureworker.core.keylists import new_trust_file
from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
from secureworker.signing.keys import SigningKey, create_signing_key
from tests.localqueue.harness import World, a_world
from tests.signing.deployment import WORKER_POOL, publish

CONTENTS = {"public/a.txt": b"content of a", "public/b.bin": bytes(100_000)}
PROVENANCE = "public/provenance.sigstore.json"


async def verify(*arguments: object) -> Result:
    """Run the command beside the loop that the embedded Taskcluster answers from."""
    return await asyncio.to_thread(CliRunner().invoke, command, [str(argument) for argument in arguments])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(None) as world:
        yield world


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return create_signing_key(str(tmp_path / "signing"))


@pytest.fixture
def trust(world: World, key: SigningKey, tmp_path: Path) -> Path:
    pool = TrustPool(WORKER_POOL, Implementation.SECUREWORKER, (TrustKey(key.public.raw),))
    (tmp_path / "trust.yml").write_text(new_trust_file(Trust((pool,), world.root_url)))
    return tmp_path / "trust.yml"


async def test_a_task_is_fetched_and_verified_by_its_id(world: World, key: SigningKey, trust: Path) -> None:
    task_id = await publish(world, key, CONTENTS)

    result = await verify(task_id, "--trust", trust)

    assert result.exit_code == 0, result.output
    assert f" 4 ok   subject: task {task_id}, run 0" in result.output
    assert result.output.endswith("\nverified\n")


async def test_what_was_fetched_can_be_kept_and_verified_again(
    world: World, key: SigningKey, trust: Path, tmp_path: Path
) -> None:
    task_id = await publish(world, key, CONTENTS)
    kept = tmp_path / "kept"

    first = await verify(task_id, "--key", key.public.base64, "--root-url", world.root_url, "--output", kept)
    again = await verify(kept, "--trust", trust, "--task-id", task_id)

    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert (kept / "public" / "a.txt").read_bytes() == b"content of a"
    assert (await verify(task_id, "--trust", trust, "--output", kept)).exit_code == 2


async def test_a_task_whose_artifact_was_replaced_is_not_verified(world: World, key: SigningKey, trust: Path) -> None:
    task_id = await publish(world, key, CONTENTS, stored={"public/a.txt": b"another content"})

    result = await verify(task_id, "--trust", trust, "--json")

    told = json.loads(result.output)
    assert (result.exit_code, told["verified"]) == (1, False)
    assert told["steps"][-1]["name"] == "hashes"


async def test_a_run_that_failed_is_not_verified(world: World, key: SigningKey, trust: Path) -> None:
    task_id = await publish(world, key, CONTENTS, completed=False)

    result = await verify(task_id, "--trust", trust)

    assert result.exit_code == 1
    assert "the Queue says that the run is failed, and not completed" in result.output


async def test_a_directory_that_is_there_is_not_fetched_into(
    world: World, key: SigningKey, trust: Path, tmp_path: Path
) -> None:
    task_id = await publish(world, key, CONTENTS)
    result = await verify(task_id, "--trust", trust, "--output", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path} is there already; name a new directory" in result.output


async def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path, key: SigningKey) -> None:
    result = await verify(tmp_path, "--key", tmp_path / "signing")
    assert result.exit_code == 2
    assert "and so is a private key; give the public one" in result.output
    assert key.public.fingerprint not in result.output


async def test_what_cannot_be_fetched_is_named(world: World, key: SigningKey, trust: Path) -> None:
    task_id = await publish(world, key, {**CONTENTS, "private/c": b"c"})

    result = await verify(task_id, "--trust", trust)

    assert result.exit_code == 1
    assert "not fetched: private/c: the answer is 403" in result.stderr
    assert "private/c: cannot be read: No such file" in result.stdout


async def test_a_bundle_is_verified_with_the_files_beside_it(
    world: World, key: SigningKey, trust: Path, tmp_path: Path
) -> None:
    task_id = await publish(world, key, CONTENTS)
    kept = tmp_path / "kept"
    await verify(task_id, "--trust", trust, "--output", kept)

    good = await verify(kept / PROVENANCE, kept / "public" / "a.txt", "--trust", trust)
    (kept / "public" / "a.txt").write_bytes(b"other")
    bad = await verify(kept / PROVENANCE, kept / "public" / "a.txt", "--trust", trust)

    assert (good.exit_code, bad.exit_code) == (0, 1), good.output
    assert " 6 ok   hashes: 1 files are as they were signed, of 2 subjects" in good.output
    assert " 6 FAIL hashes: " in bad.output


@pytest.mark.parametrize(
    "wrong",
    [
        ("TASK",),
        ("TASK", "--trust", "TRUST", "--key", "A" * 43 + "="),
        ("TASK", "--key", "A" * 43 + "="),
        ("TASK", "--trust", "TRUST", "--task-id", "TyRoGA_OS3W2QMCEuF1icw"),
        ("TASK", "--trust", "TRUST"),
        ("TASK", "--trust", "/etc/hostname"),
        ("nonsense", "--trust", "TRUST"),
        ("/etc", "/etc/hostname", "--trust", "TRUST"),
    ],
)
async def test_what_cannot_be_asked_is_a_usage_error(trust: Path, wrong: tuple[str, ...]) -> None:
    given = {"TASK": "ddVaxIRdRAaAAr5ryHnORA", "TRUST": str(trust)}

    result = await verify(*(given.get(argument, argument) for argument in wrong))

    assert result.exit_code == 2
    assert "Error: " in result.output


async def test_the_command_works_as_a_process(world: World, key: SigningKey, trust: Path) -> None:
    task_id = await publish(world, key, CONTENTS)

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "secureworker", "verify", task_id, "--trust", str(trust)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()

    assert (process.returncode, said.splitlines()[-1]) == (0, b"verified")


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        (("trust",), "A trust file"),
        (("provenance",), "SLSA provenance of a run"),
        (("provenance", "--parameters"), "External parameters of the build type release-script/v1"),
    ],
)
def test_the_schemas_of_what_is_verified_are_printed(asked: tuple[str, ...], title: str) -> None:
    result = CliRunner().invoke(schema, asked)

    assert json.loads(result.output)["title"] == title
