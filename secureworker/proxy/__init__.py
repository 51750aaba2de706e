"""The doors of a task's network namespace, served from outside: Taskcluster, and the hosts that the policy names."""
