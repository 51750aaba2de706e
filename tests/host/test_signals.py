"""What an operator asks for by signal."""

import asyncio
import os
import signal
import threading

from secureworker.host.signals import Nobody, Signals, hold


async def asked(signals: Signals, count: int) -> list[str]:
    found: list[str] = []
    async with asyncio.timeout(10):
        async for one in signals.shutdowns():
            found.append(one)
            if len(found) == count:
                break
    return found


async def test_each_signal_asks_for_its_own_and_a_second_sigterm_for_haste() -> None:
    with Signals().caught() as signals:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            # One at a time: signals that arrive together are taken in the order of their numbers.
            await asyncio.sleep(0)
        assert await asked(signals, 5) == ["drain", "stop", "drain", "now", "now"]


async def test_signals_on_hold_are_delivered_once_they_can_be_taken() -> None:
    hold()
    # To this thread: a program calls `hold` before it has others, but these tests have some that hold nothing.
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    assert signal.SIGTERM in signal.sigpending()
    with Signals().caught() as signals:
        assert await asked(signals, 1) == ["stop"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM, signal.SIGUSR1} == set()


async def test_sighup_asks_a_daemon_to_reload_and_nobody_else() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with Signals().caught():
        assert signal.getsignal(signal.SIGHUP) == before
    with Signals(daemon=True).caught() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert await asked(signals, 1) == ["reload"]


async def test_nobody_asks_for_nothing() -> None:
    assert [one async for one in Nobody().shutdowns()] == []
