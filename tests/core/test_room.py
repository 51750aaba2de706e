"""How much room a run may need at most."""

from dataclasses import replace
from datetime import timedelta

from secureworker.core.ids import ScriptName
from secureworker.core.plan import Limits, OutputRules
from secureworker.core.policy import UpstreamRule
from secureworker.core.room import Room, needed
from secureworker.testing import a_policy, a_script

MIB = 2**20
SMALL = Limits(timedelta(hours=1), 64 * MIB, 64, 1.0, 100 * MIB, 1000, 2 * MIB, 256)


def test_a_run_may_write_to_its_limit_and_its_outputs_are_copied() -> None:
    outputs = OutputRules(("public/**",), MIB, 30 * MIB, 20)
    assert needed(a_policy(a_script(limits=SMALL, outputs=outputs))) == Room((100 + 30 + 2) * MIB, 1020, 64 * MIB)


def test_no_more_is_copied_than_could_be_written() -> None:
    outputs = OutputRules(("public/**",), 2**40, 2**40, 10**6)
    assert needed(a_policy(a_script(limits=SMALL, outputs=outputs))) == Room((100 + 100 + 2) * MIB, 2000, 64 * MIB)


def test_inputs_take_room_beside() -> None:
    rule = UpstreamRule(required=True, worker_pools=("*",), max_size=7 * MIB, forbid_features=())
    plain, fetching = a_script(limits=SMALL), a_script(limits=SMALL, upstream=rule)
    assert needed(a_policy(fetching)).disk_bytes - needed(a_policy(plain)).disk_bytes == 7 * MIB


def test_the_most_demanding_script_counts_for_each_quantity() -> None:
    greedy = replace(SMALL, memory_bytes=2**30)
    wordy = replace(SMALL, files=50_000)
    policy = a_policy(a_script(limits=greedy), a_script(name=ScriptName("other"), limits=wordy))
    assert (needed(policy).memory_bytes, needed(policy).files) == (2**30, 50_000 + 100)


def test_of_a_script_without_limits_only_its_log_is_known() -> None:
    assert needed(a_policy(a_script(limits=SMALL, unlimited=True))) == Room(2 * MIB, 0, 0)


def test_what_an_operator_says_takes_the_place() -> None:
    room = Room(1, 2, 3)
    assert room.with_own(None, None) == room
    assert room.with_own(10, None) == Room(10, 2, 3)
    assert room.with_own(None, 0) == Room(1, 2, 0)
