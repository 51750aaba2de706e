"""The demonstration: a small real release on an embedded Taskcluster, told step by step.

The worker runs as a process of its own, exactly as an operator would start it. Nothing here is needed by a worker.
"""
