"""What looks at a worker for as long as its process works, whatever policies it goes through."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from secureworker import __version__
from secureworker.app.settings import LOGS, Settings
from secureworker.core.errors import SettingsError
from secureworker.core.happening import Began
from secureworker.core.policy import Policy
from secureworker.host.clock import SystemClock
from secureworker.operation.around import Operation, operated
from secureworker.operation.view_open import StatusSettings, open_status
from secureworker.ports import Watcher
from secureworker.worker.together import Watchers


@dataclass(frozen=True, slots=True)
class Lookers:
    """Those who look at a worker."""

    watcher: Watcher
    """All who are to be told what happens, as one."""
    operation: Operation


@asynccontextmanager
async def watched(policy: Policy, settings: Settings) -> AsyncIterator[Lookers]:
    """Give who is to be told what happens.

    Raises:
        SettingsError: the state directory cannot be used, or what is seen cannot be shown where it was asked for.
    """
    clock = SystemClock()
    state = Path(settings.state_dir)
    await asyncio.to_thread(_make_directories, state)
    began = Began(settings.identity, __version__, policy.root_url, policy.sha256)
    async with AsyncExitStack() as stack:
        operation = await stack.enter_async_context(operated(settings.operation, settings.identity, clock))
        shown = StatusSettings(settings.status, str(state / LOGS), operation.routes)
        board = await stack.enter_async_context(open_status(began, clock, shown))
        yield Lookers(Watchers((*operation.watchers, board)), operation)


def _make_directories(state: Path) -> None:
    try:
        # 0711: scripts run as ids of their own, and pass through to what is theirs.
        state.mkdir(mode=0o711, parents=True, exist_ok=True)
        (state / LOGS).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the state directory {state} cannot be used: {error.strerror}; give another by --state-dir"
        ) from error
