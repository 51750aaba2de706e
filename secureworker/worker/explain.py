"""Why a run ended as it did, in the words of its public task_log."""

from typing import assert_never

from secureworker.core.errors import BadPayload, HostError
from secureworker.core.outcome import (
    Errored,
    ExitCode,
    Exited,
    ExitStatus,
    KilledBySignal,
    Outcome,
    Refused,
    Resolution,
    Stopped,
    resolve,
)
from secureworker.ports import TaskLog


def explain(outcome: Outcome, task_log: TaskLog) -> None:
    """Write every reason for `outcome`, and how the run will be resolved."""
    match outcome:
        case Exited():
            _explain_exit(outcome, task_log)
        case Refused():
            for reason in outcome.reasons:
                task_log.error(f"refused: {reason}")
        case Stopped():
            task_log.error(f"{outcome.reason.value}: {outcome.detail}")
        case Errored():
            _explain_error(outcome, task_log)
        case _:
            assert_never(outcome)
    resolution = resolve(outcome)
    if resolution is Resolution.NOT_OURS:
        task_log.note("this run is not this worker's any more; nothing is reported")
    else:
        task_log.note(f"this run is resolved {resolution.value}")


def _explain_exit(outcome: Exited, task_log: TaskLog) -> None:
    execution = outcome.execution
    seconds = (execution.finished - execution.started).total_seconds()
    task_log.note(f"Sandbox: {execution.runtime}, template sha256:{execution.template_sha256}")
    task_log.note(f"the script took {seconds:.3f} s")
    match execution.status:
        case ExitCode(code):
            task_log.note(f"exit code: {code}")
        case KilledBySignal(signal, out_of_memory):
            # scriptworker's line: log parsers of release automation look for it.
            task_log.output(f"Automation Error: python exited with signal -{signal}\n".encode())
            if out_of_memory:
                task_log.error("the script used more memory than its limit and was killed")
            else:
                task_log.error(f"the script was killed by signal {signal}")


def _explain_error(outcome: Errored, task_log: TaskLog) -> None:
    match outcome.error:
        case BadPayload(reasons=reasons):
            for reason in reasons:
                task_log.error(f"malformed-payload: {reason}")
        case HostError():
            # Messages to the operator may name paths of the host: they stay in the worker's own task_log.
            task_log.error(
                f"this worker's host is not in order ({type(outcome.error).__name__}); "
                "the details are in the worker's own log, and its operator must act"
            )
        case _:
            task_log.error(str(outcome.error))


def summary(outcome: Outcome) -> str:
    """Say in one line why a run ended, for the worker's own log."""
    match outcome:
        case Exited(execution=execution):
            return describe(execution.status)
        case Refused(reasons=reasons):
            return "refused: " + "; ".join(str(reason) for reason in reasons)
        case Stopped(reason=reason, detail=detail):
            return f"{reason.value}: {detail}"
        case Errored(error=error):
            return f"{type(error).__name__}: {error}"
        case _:
            assert_never(outcome)


def describe(status: ExitStatus) -> str:
    """Say how a script ended, in a few words."""
    if isinstance(status, ExitCode):
        return f"exit code {status.code}"
    return f"killed by signal {status.signal}" + (" for want of memory" if status.out_of_memory else "")
