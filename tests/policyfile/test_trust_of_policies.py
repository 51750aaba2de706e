"""Trust in a file of its own: read with the policy, held to the same ownership, and a part of what is signed."""

import base64
import os
from datetime import date
from pathlib import Path

import pytest

from secureworker.core.errors import PolicyError
from secureworker.core.ids import WorkerPool
from secureworker.core.trust import Implementation, KeyState, TrustKey, fingerprint
from secureworker.policyfile import load
from secureworker.policyfile.advice import advise
from secureworker.policyfile.compare import compare
from secureworker.policyfile.manifest import manifest
from secureworker.policyfile.summary import of_policy
from secureworker.policyfile.words import describe
from tests.policyfile.policies import problems, read, with_rule, write

OLD, NEW, LOST = bytes(32), bytes([1] * 32), bytes([2] * 32)
NAMED = with_rule("upstream: {worker-pools: [release-3/*]}") + "trust: {file: trust.yml}\n"
TODAY = date(2026, 6, 1)


def a_key(raw: bytes, rest: str) -> str:
    return f'{{id: "{fingerprint(raw)}", public: "{base64.b64encode(raw).decode()}", {rest}}}'


TRUST = f"""\
version: 1
root-url: https://tc.example.com
worker-pools:
  release-3/b-linux:
    implementation: generic-worker
    keys:
      - {a_key(OLD, "state: retired, valid-until: 2026-05-31")}
      - {a_key(NEW, "state: next, valid-from: 2026-06-01, valid-until: 2027-06-01")}
      - {a_key(LOST, "state: revoked")}
"""


def write_trust(directory: Path, text: str = TRUST) -> Path:
    path = directory / "trust.yml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_pools_and_keys_are_those_of_the_file(tmp_path: Path) -> None:
    file = write_trust(tmp_path)

    policy = read(tmp_path, NAMED)

    (pool,) = policy.trust
    assert (pool.worker_pool, pool.implementation) == (
        WorkerPool("release-3", "b-linux"),
        Implementation.GENERIC_WORKER,
    )
    assert pool.keys == (
        TrustKey(OLD, KeyState.RETIRED, None, date(2026, 5, 31)),
        TrustKey(NEW, KeyState.NEXT, date(2026, 6, 1), date(2027, 6, 1)),
        TrustKey(LOST, KeyState.REVOKED),
    )
    assert policy.trust_file is not None
    assert policy.trust_file.path == str(file)
    assert policy.files == (policy.trust_file,)


def test_its_digest_is_in_what_reviewers_sign_and_another_file_is_another_policy(tmp_path: Path) -> None:
    write_trust(tmp_path)
    policy = read(tmp_path, NAMED)
    assert policy.trust_file is not None
    assert f"{policy.trust_file.sha256}  trust.yml\n" in manifest(str(tmp_path / "release.yml"), policy).decode()

    write_trust(tmp_path, TRUST.replace("2027-06-01", "2028-06-01"))
    again = read(tmp_path, NAMED)

    assert again.sha256 == policy.sha256
    assert again.files != policy.files
    (change,) = compare(policy, again)
    assert change.key == f"trust[{fingerprint(NEW)}]"


def test_it_is_said_where_trust_comes_from_and_in_which_state_keys_are(tmp_path: Path) -> None:
    file = write_trust(tmp_path)
    policy = read(tmp_path, NAMED)
    assert policy.trust_file is not None

    words = "\n".join(describe(policy))
    assert f"Inputs may come from as {file} says, with sha256 {policy.trust_file.sha256}" in words
    assert f"{fingerprint(OLD)} (retired, until 2026-05-31)" in words
    assert f"{fingerprint(NEW)} (next, from 2026-06-01, until 2027-06-01)" in words
    assert f"{fingerprint(LOST)} (revoked)" in words
    summary = of_policy(policy)
    assert summary["trust-file"] == str(file)
    assert str(summary["trust"]).count("'state': ") == 3
    assert not any("expire" in str(warning) for warning in advise(policy, TODAY, host=True))
    inline = read(tmp_path, NAMED.replace("{file: trust.yml}", "{worker-pools: {release-3/b-linux: "
        f"{{implementation: generic-worker, keys: [{a_key(NEW, 'state: active')}]}}}}}}"))  # fmt: skip
    assert {change.key for change in compare(inline, policy)} >= {"trust.file", "trust"}


@pytest.mark.parametrize("name", ["/etc/trust.yml", "trust.yml"])
def test_a_file_of_another_host_is_not_looked_for_one_beside_the_policy_is(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, NAMED.replace("trust.yml", name))
    if name.startswith("/"):
        policy = load(path, host=False)
        assert (policy.trust, policy.files) == ((), ())
        assert of_policy(policy)["trust-file"] == name
        with pytest.raises(PolicyError, match="is the workers' own, so that it is not known here what would be signed"):
            manifest(path, policy)
    else:
        write_trust(tmp_path)
        assert load(path, host=False).trust


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("version: 1", "version: 2", "trust.yml:1: version: found 2; expected 1"),
        ("state: revoked", "state: lost", 'trust.yml:9: worker-pools["release-3/b-linux"].keys[2].state: found'),
        ("https://tc.example.com", "https://other.example.com", "is for https://other.example.com, and this policy"),
        ("release-3/b-linux", "release-4/b-linux", "DIR/trust.yml has no pool 'release-3/*'; add it with its keys"),
        (", state: revoked", "", "keys[2].state: is missing"),
    ],
)
def test_what_is_wrong_with_the_file_is_wrong_with_the_policy(tmp_path: Path, old: str, new: str, problem: str) -> None:
    write_trust(tmp_path, TRUST.replace(old, new, 1))
    found = problems(tmp_path, NAMED)
    assert any(problem in each for each in found), found


@pytest.mark.parametrize(
    ("trust", "problem"),
    [
        ("{file: gone.yml}", "DIR/gone.yml cannot be read: No such file"),
        ("{file: ../trust.yml}", "expected a path that stays in the policy's directory"),
        ("{file: /etc/../trust.yml}", "expected '/etc/../trust.yml'".replace("/etc/../", "/")),
        ("{file: bin}", "DIR/bin cannot be read"),
        ("{file: ''}", "trust.file: found"),
        ("{}", "trust: found {}"),
        ("{file: trust.yml, worker-pools: {}}", "trust: found"),
    ],
)
def test_a_file_that_cannot_be_had_is_no_trust_at_all(tmp_path: Path, trust: str, problem: str) -> None:
    write_trust(tmp_path)
    found = problems(tmp_path, NAMED.replace("{file: trust.yml}", trust))
    assert any(problem in each for each in found), found


def test_a_file_that_others_could_change_is_refused(tmp_path: Path) -> None:
    write_trust(tmp_path).chmod(0o666)
    assert any("trust.yml may be written by everybody" in each for each in problems(tmp_path, NAMED))
    os.mkfifo(tmp_path / "fifo")
    assert any("no regular file" in each for each in problems(tmp_path, NAMED.replace("trust.yml", "fifo")))


def test_a_link_to_a_file_outside_of_the_policys_directory_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "policy"
    inside.mkdir()
    write_trust(tmp_path)
    (inside / "trust.yml").symlink_to("../trust.yml")
    assert any("stays in the policy's directory" in each for each in problems(inside, NAMED))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(write_trust(tmp_path), 12345, 12345)
    assert any("belongs to uid 12345, who could change it" in each for each in problems(tmp_path, NAMED))
