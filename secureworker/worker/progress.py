"""How far a run has come: what its outcome needs when the line is left early, told to whoever watches."""

from dataclasses import dataclass

from secureworker.core.happening import Phase, PhaseEntered
from secureworker.core.ids import RunId, TaskId
from secureworker.ports import Watcher


@dataclass(slots=True)
class Progress:
    """The program counter of one run, and the two facts that an outcome needs when the line is left early."""

    task_id: TaskId
    run_id: RunId
    watcher: Watcher
    phase: Phase = Phase.CLAIMED
    """Set by `enter`; nothing branches on it."""
    started: bool = False
    """Whether the script may have begun to run."""
    repeatable: bool = True
    """The plan's, once there is one."""

    def enter(self, phase: Phase) -> None:
        """Come to the next step."""
        self.phase = phase
        self.watcher.saw(PhaseEntered(self.task_id, self.run_id, phase))
