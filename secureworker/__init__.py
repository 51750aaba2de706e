"""A sandboxed, scriptworker-style worker for Taskcluster. The map of the package is in docs/architecture.md."""

__version__ = "0.1.0"
