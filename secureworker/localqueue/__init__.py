"""The embedded Taskcluster over HTTP on loopback, for demo, tests and run-local.

Queue, Auth, Object, Secrets, and what static workers need of worker-manager.

Behaves as the services of Taskcluster v106 were seen to behave, bodies, messages and order of checks included, so that
a worker that works here works there. It differs on purpose where they are broken (a `%` in an artifact's name, an
object artifact with `contentLength`, a request that is too large, an unfilled `{{hash}}`), and where copying would
serve nobody:

- presigned URLs look like S3's and are signed in another way; the bucket is served by the same server;
- a dependency that was satisfied and is rerun before the resolver looks again counts as it is then;
- nothing is published to RabbitMQ, nothing expires from the database, clients and roles are settings;
- worker-manager has the static provider only, and its pools and workers are settings;
- what a worker does not call is left out: index, hooks, claimTask, task queues' listings.

`server.serve` is the way in; `settings` says what can be set. A request passes `front` (HTTP), `calls` (order of
checks), then its endpoint in `queue_*`, `artifact_reads`, `objects`, `secret_store`, `worker_manager` or `auth`.
`lifecycle` holds a task's states and touches nothing else; `resolvers` act without requests.
"""
