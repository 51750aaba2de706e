"""What looks at a worker for as long as its process works, whatever policies it goes through."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from secureworker import __version__
from secureworker.app.settings import LOGS, Settings
from secureworker.core.errors import SettingsError
from secureworker.core.happening import Began
from secureworker.core.policy import Policy
from secureworker.host.clock import SystemClock
from secureworker.operation.view_open import StatusSettings, open_status
from secureworker.worker.together import Watchers


@asynccontextmanager
async def watched(policy: Policy, settings: Settings) -> AsyncIterator[Watchers]:
    """Give who is to be told what happens.

    Raises:
        SettingsError: the state directory cannot be used, or what is seen cannot be shown where it was asked for.
    """
    clock = SystemClock()
    state = Path(settings.state_dir)
    await asyncio.to_thread(_make_directories, state)
    began = Began(settings.identity, __version__, policy.root_url, policy.sha256)
    async with AsyncExitStack() as stack:
        shown = StatusSettings(settings.status, str(state / LOGS))
        board = await stack.enter_async_context(open_status(began, clock, shown))
        yield Watchers((board,))


def _make_directories(state: Path) -> None:
    try:
        # 0711: scripts run as ids of their own, and pass through to what is theirs.
        state.mkdir(mode=0o711, parents=True, exist_ok=True)
        (state / LOGS).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the state directory {state} cannot be used: {error.strerror}; give another by --state-dir"
        ) from error
