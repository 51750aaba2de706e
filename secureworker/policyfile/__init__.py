"""Reads the policy file: YAML with line numbers into `core.policy` values, every error with file and line."""

from secureworker.policyfile.enforced import unenforceable
from secureworker.policyfile.load import load

__all__ = ["load", "unenforceable"]
