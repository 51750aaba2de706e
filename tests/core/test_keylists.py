"""A trust file's keys in the forms of others. That the others take them is for tests/signing."""

import base64
import json
from datetime import date
from pathlib import Path

from secureworker.core import keylists
from secureworker.core.ids import WorkerPool
from secureworker.core.trust import Implementation, KeyState, Trust, TrustKey, TrustPool, fingerprint, hint
from secureworker.host.trustfile import load_trust

SIGNING, BUILDS = WorkerPool("releng", "signing"), WorkerPool("gecko-3", "b-linux")
ACTIVE, NEXT, RETIRED, REVOKED, BUILD = (bytes(31) + bytes([number]) for number in range(1, 6))
TRUST = Trust(
    (
        TrustPool(
            SIGNING,
            Implementation.SECUREWORKER,
            (
                TrustKey(ACTIVE, valid_from=date(2026, 1, 1), valid_until=date(2026, 12, 31)),
                TrustKey(NEXT, KeyState.NEXT, valid_from=date(2027, 1, 1)),
                TrustKey(RETIRED, KeyState.RETIRED, valid_until=date(2025, 12, 31)),
                TrustKey(REVOKED, KeyState.REVOKED, last_good=()),
            ),
        ),
        TrustPool(BUILDS, Implementation.GENERIC_WORKER, (TrustKey(BUILD), TrustKey(ACTIVE))),
    ),
    "https://tc.example.com",
)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_scriptworkers_lists_are_by_kind_and_hold_what_signs_now_or_soon() -> None:
    assert keylists.scriptworker(TRUST).splitlines() == [
        "ed25519_public_keys:",
        "  generic-worker:",
        f'    - "{b64(BUILD)}"',
        f'    - "{b64(ACTIVE)}"',
        "  scriptworker:",
        f'    - "{b64(ACTIVE)}"',
        f'    - "{b64(NEXT)}"',
    ]


def test_a_key_that_two_pools_of_a_kind_share_is_listed_once() -> None:
    pools = tuple(TrustPool(pool, Implementation.SCRIPTWORKER, (TrustKey(ACTIVE),)) for pool in (SIGNING, BUILDS))

    assert keylists.scriptworker(Trust(pools)).count(b64(ACTIVE)) == 1


def test_pem_has_a_block_for_each_key_below_its_name() -> None:
    text = keylists.pem(TRUST, SIGNING)

    assert text.count("-----BEGIN PUBLIC KEY-----") == 2
    assert text.startswith(f"# releng/signing {fingerprint(ACTIVE)}\n-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA")


def test_allowed_signers_have_days_and_retired_keys() -> None:
    active, following, retired = keylists.allowed_signers(TRUST, SIGNING).splitlines()

    assert active.startswith(
        'releng/signing namespaces="file",valid-after="20260101Z",valid-before="20270101Z" ssh-ed25519 AAAA'
    )
    assert following.startswith('releng/signing namespaces="file",valid-after="20270101Z" ssh-ed25519 AAAA')
    assert retired.startswith('releng/signing namespaces="file",valid-before="20260101Z" ssh-ed25519 AAAA')


def test_sigstores_keys_are_by_hint_with_their_days() -> None:
    keys = json.loads(keylists.sigstore_keys(TRUST))

    assert set(keys) == {hint(raw) for raw in (ACTIVE, NEXT, RETIRED, BUILD)}
    assert keys[hint(RETIRED)]["validFor"] == {"start": "1970-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}
    assert keys[hint(RETIRED)]["keyDetails"] == "PKIX_ED25519"


def test_a_key_of_several_pools_is_valid_as_the_last_of_them_says() -> None:
    keys = json.loads(keylists.sigstore_keys(TRUST))

    # A form without pools can hold one answer only.
    assert keys[hint(ACTIVE)]["validFor"] == {"start": "1970-01-01T00:00:00Z"}


def test_a_trusted_root_has_the_logs_that_are_named_and_nothing_else() -> None:
    root = json.loads(keylists.trusted_root(TRUST, ("log.example.com/signing",), SIGNING))

    assert [log["baseUrl"] for log in root["tlogs"]] == ["https://log.example.com/signing"] * 3
    assert root["certificateAuthorities"] == root["ctlogs"] == root["timestampAuthorities"] == []
    assert json.loads(keylists.trusted_root(TRUST, ()))["tlogs"] == []


def test_a_new_trust_file_is_read_as_what_it_was_written_from(tmp_path: Path) -> None:
    keys = (
        TrustKey(ACTIVE, valid_from=date(2026, 1, 1), valid_until=date(2026, 12, 31)),
        TrustKey(NEXT, KeyState.NEXT, valid_from=date(2027, 1, 1)),
    )
    trust = Trust((TrustPool(SIGNING, Implementation.SECUREWORKER, keys),), "https://tc.example.com")
    (tmp_path / "trust.yml").write_text(keylists.new_trust_file(trust))

    assert load_trust(str(tmp_path / "trust.yml")) == trust


def test_a_trust_file_may_be_for_any_deployment(tmp_path: Path) -> None:
    trust = Trust((TrustPool(SIGNING, Implementation.SECUREWORKER, (TrustKey(ACTIVE),)),))
    (tmp_path / "trust.yml").write_text(keylists.new_trust_file(trust))

    assert load_trust(str(tmp_path / "trust.yml")) == trust
