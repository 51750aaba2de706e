"""Reads the policy file: YAML with line numbers into `core.policy` values, every error with file and line."""
