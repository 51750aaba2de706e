"""The OCI sandbox: bundle, runtime, cgroup, network namespace, read-back, self-test."""
