"""Virtual time for code that reads files in threads: it would run away while a thread works, so nothing is threaded."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from secureworker.testing import VirtualLoop

T = TypeVar("T")


class ThreadlessLoop(VirtualLoop):
    """Does at once what would be a thread's."""

    def run_in_executor(  # type: ignore[override] # the stubs' types say more than is needed here
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        assert executor is None
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the future's
            done.set_exception(error)
        return done


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time."""
    with asyncio.Runner(loop_factory=ThreadlessLoop) as runner:
        return runner.run(main)
