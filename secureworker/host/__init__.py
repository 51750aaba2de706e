"""Thin safe wrappers over the operating system: files, documents, logs, http. Decides nothing."""
