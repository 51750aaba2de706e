"""Where the worker's own credentials come from while it runs: a file, worker-manager, or worker-runner.

Each way is a coroutine beside the claim loop that writes to `OwnCredentials`. None touches a task.
"""
