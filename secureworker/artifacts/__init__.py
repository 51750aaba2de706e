"""Outputs and the log of a run: seal, compress, upload."""
