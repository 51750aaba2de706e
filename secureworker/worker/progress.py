"""How far a run has come, for logs and status. Nothing branches on a phase."""

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """The steps of the line, in order."""

    CLAIMED = "claimed"
    DECIDING = "deciding"
    VERIFYING = "verifying"
    PREPARING = "preparing"
    FETCHING = "fetching"
    CONFIRMING = "confirming"
    RUNNING = "running"
    SEALING = "sealing"
    SIGNING = "signing"
    UPLOADING = "uploading"
    CONCLUDING = "concluding"
    REPORTING = "reporting"
    ENDED = "ended"


@dataclass(slots=True)
class Progress:
    """The program counter of one run, and the two facts that an outcome needs when the line is left early."""

    phase: Phase = Phase.CLAIMED
    started: bool = False
    """Whether the script may have begun to run."""
    repeatable: bool = True
    """The plan's, once there is one."""
