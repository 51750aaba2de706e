"""Pure decisions and values: no clock, no files, no randomness, no await, no logging."""
