"""Trust files, read strictly."""

import base64
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from secureworker.core.errors import SettingsError
from secureworker.core.ids import WorkerPool
from secureworker.core.trust import Implementation, KeyState
from secureworker.host.trustfile import load_trust

GOOD = """\
version: 1
root-url: https://tc.example.com
worker-pools:
  releng/signing:
    implementation: secureworker
    keys:
      - id: "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg"
        public: "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
        state: active
        valid-from: 2026-01-01
        valid-until: 2027-06-01
        comment: made by the release team
"""

Refused = Callable[[str], str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Give a function that loads what must not load, and gives the message."""

    def load(text: str) -> str:
        path = tmp_path / "trust.yml"
        path.write_text(text)
        with pytest.raises(SettingsError) as caught:
            load_trust(str(path))
        return str(caught.value).replace(str(tmp_path), "")

    return load


def test_a_trust_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "trust.yml").write_text(GOOD)

    trust = load_trust(str(tmp_path / "trust.yml"))

    (pool,) = trust.pools
    assert trust.root_url == "https://tc.example.com"
    assert (pool.worker_pool, pool.implementation) == (WorkerPool("releng", "signing"), Implementation.SECUREWORKER)
    (key,) = pool.keys
    assert key.fingerprint == "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg"
    assert (key.state, key.valid_from, key.valid_until) == (KeyState.ACTIVE, date(2026, 1, 1), date(2027, 6, 1))


def test_the_schemas_own_example_is_one(checkout: Path, tmp_path: Path) -> None:
    schema = json.loads((checkout / "schemas" / "trust.schema.json").read_text())
    (tmp_path / "trust.json").write_text(json.dumps(schema["examples"][0]))

    assert load_trust(str(tmp_path / "trust.json")).pools


ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
CHECKPOINT = f"secureworker/releng/signing/dc1/w/000001\n7\n{ROOT}\n"


def revoked(*checkpoints: str) -> str:
    """Give the trust file in which the key is revoked, with what its logs were before."""
    listed = "".join(f"          - {json.dumps(one)}\n" for one in checkpoints)
    return GOOD.replace("state: active", f"state: revoked\n        last-good-checkpoints:\n{listed.rstrip()}")


@pytest.mark.parametrize("signatures", ["", "\nfirst line of no signature\n", "\n\u2014 secureworker/x AAAA\n"])
def test_of_a_revoked_key_the_last_good_checkpoints_are_kept(tmp_path: Path, signatures: str) -> None:
    other = CHECKPOINT.replace("000001", "000002")
    (tmp_path / "trust.yml").write_text(revoked(CHECKPOINT + signatures, other))

    (pool,) = load_trust(str(tmp_path / "trust.yml")).pools

    assert pool.keys[0].state is KeyState.REVOKED
    assert [(one.origin[-6:], one.size) for one in pool.keys[0].last_good] == [("000001", 7), ("000002", 7)]
    assert all(base64.b64encode(one.root).decode() == ROOT for one in pool.keys[0].last_good)


def test_a_checkpoint_is_written_as_the_block_of_text_that_it_is(tmp_path: Path) -> None:
    block = "\n".join(f"            {line}" for line in CHECKPOINT.splitlines())
    text = GOOD.replace("state: active", f"state: revoked\n        last-good-checkpoints:\n          - |\n{block}")
    (tmp_path / "trust.yml").write_text(text)

    assert load_trust(str(tmp_path / "trust.yml")).pools[0].keys[0].last_good[0].size == 7


@pytest.mark.parametrize(
    ("checkpoints", "says"),
    [
        ([CHECKPOINT.replace("\n7\n", "\n07\n")], "write the first three lines of the checkpoint"),
        ([CHECKPOINT.partition(ROOT)[0]], "write the first three lines of the checkpoint"),
        ([CHECKPOINT.replace(ROOT, ROOT[4:])], "write the first three lines of the checkpoint"),
        (["7"], "the first three lines of a checkpoint"),
        ([CHECKPOINT.replace("releng/signing", "releng/signin")], "which is no log of releng/signing"),
        ([CHECKPOINT.replace("releng/signing", "releng/signing-2")], "which is no log of releng/signing"),
        ([CHECKPOINT, CHECKPOINT.replace("\n7\n", "\n8\n")], "is here twice; keep the one that is surely good"),
    ],
)
def test_what_is_no_checkpoint_of_this_pools_logs_is_refused(
    refused: Refused, checkpoints: list[str], says: str
) -> None:
    assert says in refused(revoked(*checkpoints))


def test_a_size_alone_is_not_taken_for_a_log(refused: Refused) -> None:
    # Who has the key signs another log of the same size: only its root tells the two apart.
    assert "last-good-log-size" in refused(
        GOOD.replace("state: active", "state: revoked\n        last-good-log-size: 7")
    )


@pytest.mark.parametrize(
    ("found", "written", "line", "says"),
    [
        ("version: 1", "version: 2", 1, "version"),
        ("version: 1", "version: 1\nversion: 1", 2, "is here twice"),
        ("version: 1", "version: 1\nroot_url: https://a", 2, "did you mean 'root-url'?"),
        ("https://tc.example.com", "ftp://tc", 2, "a URL like"),
        ("releng/signing", "releng", 4, "<provisionerId>/<workerType>"),
        ("implementation: secureworker", "implementation: buildbot", 5, "implementation"),
        ("lbmsoA0y", "AAAAAA0y", 7, "the key's fingerprint is SHA256:lbmsoA0y"),
        ("A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=", "AAAA", 8, "base64 of 32 bytes"),
        ("state: active", "state: old", 9, "state"),
        ("        state: active\n", "", 7, "state"),
        ("valid-from: 2026-01-01", "valid-from: 2026-02-30", 10, "day is out of range"),
        ("valid-until: 2027-06-01", "valid-until: 2025-12-31", 11, "before valid-from"),
        ("comment: made", "last-good-checkpoints: [] # made", 12, "only revoked ones have it"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_key(
    refused: Refused, found: str, written: str, line: int, says: str
) -> None:
    assert GOOD.count(found) == 1

    message = refused(GOOD.replace(found, written))

    assert f"/trust.yml:{line}: " in message
    assert says in message


@pytest.mark.parametrize(("state", "day"), [("next", "valid-from"), ("retired", "valid-until")])
def test_a_state_that_needs_a_day_is_not_taken_without(refused: Refused, state: str, day: str) -> None:
    lines = [line for line in GOOD.splitlines() if day not in line]

    message = refused("\n".join(lines).replace("state: active", f"state: {state}"))

    assert f"found '{state}' without {day}; add the day" in message


def test_a_key_that_a_pool_has_twice_is_refused(refused: Refused) -> None:
    key = GOOD[GOOD.index("      - id") :]

    assert "this key is here twice; keep one" in refused(GOOD + key)


def test_a_key_that_is_revoked_for_one_pool_is_revoked_for_all(refused: Refused) -> None:
    pool = GOOD[GOOD.index("  releng/signing") :]
    revoked = pool.replace("releng/signing", "releng/other").replace("state: active", "state: revoked")

    message = refused(GOOD + revoked)

    assert "/trust.yml:9: " in message
    assert "for releng/other this key is revoked; revoke it here too" in message


@pytest.mark.parametrize("text", ["", "[]", "version: 1", "version: 1\nworker-pools: {}", "a: [", "x" * 5_000_000])
def test_what_is_no_trust_file_is_refused(refused: Refused, text: str) -> None:
    assert "trust.yml" in refused(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        load_trust(str(tmp_path / "missing.yml"))
