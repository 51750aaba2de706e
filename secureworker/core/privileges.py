"""What the worker's own credentials may do, held against what it needs: nothing lacking, and nothing beyond.

A worker whose credentials can do more than its work is a way from a broken worker to all that they can do. So it does
not start with them. What counts as needed is said here, and nowhere else.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from secureworker.core.ids import WorkerIdentity
from secureworker.core.scopes import satisfies, unsatisfied

ANONYMOUS = "assume:anonymous"
"""Every caller has this role, with or without credentials."""


@dataclass(frozen=True, slots=True)
class ExtraScope:
    """A scope that the policy wants the worker itself to have, beside those that every worker needs."""

    scope: str
    reason: str
    """For reviewers."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with the worker's scopes; nothing, where both are empty."""

    surplus: tuple[str, ...]
    """Held and not needed."""
    lacking: tuple[str, ...]
    """Needed and not held."""


def needed(identity: WorkerIdentity) -> tuple[str, ...]:
    """Give the scopes that `claimWork` asks for, and no others."""
    return (
        f"queue:claim-work:{identity.pool}",
        f"queue:worker-id:{identity.worker_group}/{identity.worker_id}",
    )


def by_registration(identity: WorkerIdentity) -> tuple[str, ...]:
    """Give what worker-manager puts into the credentials of a worker that registers, beside what is needed.

    They reach no further than the worker itself and its pool's secrets. The roles among them may stand for more; Auth
    names that too, and it is surplus unless the policy lists it.
    """
    worker = f"{identity.worker_group}/{identity.worker_id}"
    return (
        f"assume:worker-type:{identity.pool}",
        f"assume:worker-pool:{identity.pool}",
        f"assume:worker-id:{worker}",
        f"secrets:get:worker-type:{identity.pool}",
        f"secrets:get:worker-pool:{identity.pool}",
        f"worker-manager:remove-worker:{identity.pool}/{worker}",
        f"worker-manager:reregister-worker:{identity.pool}/{worker}",
        f"worker-manager:should-worker-terminate:{identity.pool}/{worker}",
    )


def is_registered(client_id: str, identity: WorkerIdentity) -> bool:
    """Whether credentials with this client id were made by worker-manager for this very worker.

    It names them `worker/<provider>/<pool>/<group>/<id>`. Auth lets nobody make credentials of that name but who may
    create clients below `worker/`.
    """
    kind, _, rest = client_id.partition("/")
    provider, _, worker = rest.partition("/")
    return kind == "worker" and bool(provider) and worker == str(identity)


def judge(
    held: Iterable[str],
    identity: WorkerIdentity,
    *,
    everybodys: Iterable[str],
    extra: Iterable[ExtraScope] = (),
    registered: bool = False,
) -> Verdict:
    """Compare the scopes that the worker holds with those that it needs.

    1. Whatever it needs, and the policy lists, is held.
    2. Whatever is held is needed, listed by the policy, everybody's, or comes with registration. A pattern counts as
       all that it stands for: `queue:claim-work:a/*` is beyond `queue:claim-work:a/b`.

    Args:
        held: as `auth.currentScopes` answers for the worker, with roles expanded.
        identity: who the worker is.
        everybodys: what the same call answers to a caller without credentials.
        extra: the policy's.
        registered: whether the credentials come from worker-manager.
    """
    held = tuple(held)
    wanted = (*needed(identity), *(each.scope for each in extra))
    allowed = (*wanted, ANONYMOUS, *everybodys, *(by_registration(identity) if registered else ()))
    return Verdict(
        surplus=tuple(scope for scope in held if not satisfies(allowed, scope)),
        lacking=unsatisfied(held, wanted),
    )
