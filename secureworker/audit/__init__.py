"""The audit log: an append-only file of records under a signed Merkle root, and what reads and verifies it."""
