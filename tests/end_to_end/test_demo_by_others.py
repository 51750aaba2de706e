"""What the demonstration leaves behind, judged by programs that are not ours: each takes it, and not another key's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from secureworker.core import keylists
from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
from secureworker.host.trustfile import load_trust
from tests.audit.conftest import a_key
from tests.signing.test_third_parties import SCRIPTWORKER
from tests.signing.test_third_parties_provenance import COSIGN, MODELS, SCRIPT, needs_cosign, openssl

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]
ARTIFACT = "public/build/hello-1.0.tar.gz"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "release"
    argv = [sys.executable, "-m", "secureworker", "demo", "--output", str(output)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture
def task(release: Path) -> Path:
    return release / "build-tarball"


@pytest.fixture(params=[True, False], ids=["its key", "another key"])
def trust(release: Path, request: pytest.FixtureRequest) -> tuple[Trust, bool]:
    """Give the trust file that the demonstration wrote, or one with another key; and whether it should be accepted."""
    written = load_trust(str(release / "trust.yml"))
    if request.param:
        return written, True
    pool = TrustPool(written.pools[0].worker_pool, Implementation.SECUREWORKER, (TrustKey(a_key().public.raw),))
    return Trust((pool,), written.root_url), False


def run(*argv: object) -> tuple[int, str]:
    ended = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, timeout=120)
    return ended.returncode, ended.stdout + ended.stderr


def test_openssl_judges_the_demos_provenance(task: Path, trust: tuple[Trust, bool], tmp_path: Path) -> None:
    assert openssl(task, keylists.pem(trust[0]), tmp_path) is trust[1]


def test_sigstore_js_judges_the_demos_provenance(
    task: Path, trust: tuple[Trust, bool], sigstore_modules: Path, tmp_path: Path
) -> None:
    (tmp_path / "root.json").write_text(keylists.trusted_root(trust[0], ()))
    (tmp_path / "keys.json").write_text(keylists.sigstore_keys(trust[0]))

    bundle = task / "public" / "provenance.sigstore.json"
    code, said = run("node", SCRIPT, sigstore_modules, bundle, tmp_path / "root.json", tmp_path / "keys.json")

    assert (code == 0) is trust[1], said


def test_scriptworker_judges_the_demos_chain_of_trust(
    task: Path, trust: tuple[Trust, bool], scriptworker_python: Path, tmp_path: Path
) -> None:
    (listed,) = re.findall(r'- "(.*)"', keylists.scriptworker(trust[0]))
    (tmp_path / "key.pub").write_text(f"{listed}\n")
    body = task / "public" / "chain-of-trust.json"

    code, said = run(scriptworker_python, "-c", SCRIPTWORKER, tmp_path / "key.pub", body, f"{body}.sig")

    assert (code == 0, said.strip()) == (trust[1], "accepted" if trust[1] else "rejected")


def test_the_demos_provenance_fits_the_models_of_in_toto_and_sigstore(
    task: Path, release: Path, models_python: Path, tmp_path: Path
) -> None:
    (tmp_path / "root.json").write_text(keylists.trusted_root(load_trust(str(release / "trust.yml")), ("log/1",)))

    said = run(models_python, "-c", MODELS, task / "public" / "provenance.sigstore.json", tmp_path / "root.json")

    assert said == (0, "accepted\n")


@needs_cosign
def test_cosign_judges_the_demos_provenance(task: Path, trust: tuple[Trust, bool], tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(re.sub(r"^#.*\n", "", keylists.pem(trust[0]), flags=re.MULTILINE))
    (tmp_path / "root.json").write_text(keylists.trusted_root(trust[0], ()))

    code, said = run(
        *(COSIGN, "verify-blob-attestation", "--key", tmp_path / "key.pem", "--type", "slsaprovenance1"),
        *("--bundle", task / "public" / "provenance.sigstore.json", "--new-bundle-format", "--insecure-ignore-tlog"),
        *("--trusted-root", tmp_path / "root.json", task / ARTIFACT),
    )

    assert (code == 0) is trust[1], said


def test_the_demos_release_survives_the_theft_of_its_key(task: Path, release: Path, tmp_path: Path) -> None:
    """As docs/keys.md says: revoke, name the last good log, prove the older run as of it."""
    kept = release / "nosy" / "public" / "audit.tlog-proof"
    head = kept.read_text().partition("\n\n")[2].splitlines()[:3]
    block = "".join(f"            {line}\n" for line in head)
    stolen = tmp_path / "stolen.yml"
    text = (release / "trust.yml").read_text()
    bare = text.replace("state: active", "state: revoked")
    secureworker = (sys.executable, "-m", "secureworker")

    stolen.write_text(bare)
    assert run(*secureworker, "verify", release / "nosy", "--trust", stolen)[0] == 1
    stolen.write_text(
        bare.replace("revoked", f"revoked\n        last-good-checkpoints:\n          - |\n{block.rstrip()}")
    )
    assert run(*secureworker, "verify", release / "nosy", "--trust", stolen)[0] == 0
    assert run(*secureworker, "verify", task, "--trust", stolen)[0] == 1
    proof, audit = tmp_path / "old.tlog-proof", release / "audit-log"
    index = (task / "public" / "audit.tlog-proof").read_text().split("\nindex ")[1].split("\n")[0]
    assert run(*secureworker, "audit", "prove", audit, index, "--checkpoint", kept, "--output", proof)[0] == 0
    assert run(*secureworker, "verify", task, "--trust", stolen, "--log-proof", proof)[0] == 0
