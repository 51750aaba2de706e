"""How much room a host must have before a run is claimed, from what the policy lets scripts use."""

from dataclasses import dataclass, replace

from secureworker.core.policy import Policy, ScriptRule


@dataclass(frozen=True, slots=True)
class Room:
    """What one run may come to use at most, of any script: a worker cannot know which one it will claim."""

    disk_bytes: int
    """In the state directory: all that the script may write, the sealed copies of its outputs, inputs, its log."""
    files: int
    """Inodes there."""
    memory_bytes: int

    def with_own(self, disk_bytes: int | None, memory_bytes: int | None) -> "Room":
        """Let what an operator says take the place of what the policy would need; None: says nothing."""
        return replace(
            self,
            disk_bytes=self.disk_bytes if disk_bytes is None else disk_bytes,
            memory_bytes=self.memory_bytes if memory_bytes is None else memory_bytes,
        )


def needed(policy: Policy) -> Room:
    """Say what a run of the policy's most demanding script needs, each quantity by itself.

    Of scripts without limits (`limits: none`) only what is limited nevertheless is known: inputs and log.
    """
    each = [_of(script) for script in policy.scripts]
    return Room(
        max((one.disk_bytes for one in each), default=0),
        max((one.files for one in each), default=0),
        max((one.memory_bytes for one in each), default=0),
    )


def _of(script: ScriptRule) -> Room:
    limits = script.limits
    disk = limits.log_bytes
    if script.upstream is not None:
        # A second time as they come: what is hashed lies in another place than what the script gets.
        disk += script.upstream.max_size
    if script.unlimited:
        return Room(disk, 0, 0)
    sealed = min(limits.disk_bytes, script.outputs.max_total)
    return Room(
        disk + limits.disk_bytes + sealed,
        limits.files + min(limits.files, script.outputs.max_count),
        limits.memory_bytes,
    )
