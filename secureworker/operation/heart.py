"""Whether the worker is alive: whether its claim loop comes round as often as it should.

The loop asks its guards before every claim, and enters a state where it waits for something else; both are seen here.
"""

from collections.abc import Callable
from typing import Final, assert_never, final

from secureworker.core.happening import Claimed, Happening, Hindrance, Phase, PhaseEntered, State, StateEntered
from secureworker.ports import Clock

LONGEST_ROUND_SECONDS: Final = 240.0
"""An answer to a claim is waited for up to 60 s, a pause after an error is 60 s, a self-test that hangs 60."""


@final
class Heart:
    """A `Watcher`, and a `HostGuard` that finds nothing: both only to see the loop come round."""

    def __init__(self, clock: Clock, progressed: Callable[[], None] = lambda: None) -> None:
        """Take the clock, and whom to tell of each round."""
        self._clock = clock
        self._progressed = progressed
        self._last = clock.monotonic()
        self.entered = StateEntered(State.STARTING)
        """What the worker is at."""
        self.running = 0
        """Runs that are under way."""

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - the port's
        """See `ports.HostGuard`."""
        self._beat()
        return ()

    def saw(self, happening: Happening) -> None:
        """See `ports.Watcher`."""
        match happening:
            case StateEntered():
                self.entered = happening
                self._beat()
            case Claimed():
                self.running += 1
            case PhaseEntered(phase=Phase.ENDED):
                self.running -= 1
            case _:
                pass

    def _beat(self) -> None:
        self._last = self._clock.monotonic()
        self._progressed()

    @property
    def stuck_seconds(self) -> float:
        """Say for how long the loop has not come round, beyond what it may take; 0: it is alive."""
        match self.entered.state:
            case State.CLAIMING | State.HINDERED | State.UNANSWERED:
                return max(0.0, self._clock.monotonic() - self._last - LONGEST_ROUND_SECONDS)
            case State.FULL | State.DRAINING | State.STARTING | State.ENDED:
                # It waits for runs, which end by themselves; or it is not there yet, or no more.
                return 0.0
            case _:
                assert_never(self.entered.state)

    @property
    def able(self) -> bool:
        """Say whether tasks are taken on, or would be, were there places free."""
        return self.stuck_seconds == 0 and self.entered.state in {State.CLAIMING, State.FULL}
