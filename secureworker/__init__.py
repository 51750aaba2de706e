"""A sandboxed, scriptworker-style worker for Taskcluster. The map of the package is in docs/architecture.md."""
