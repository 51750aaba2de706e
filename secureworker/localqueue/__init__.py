"""The embedded Taskcluster: Queue, Auth, Object and Secrets over HTTP, for demo, tests and run-local."""
