"""A run from its first epoch to its last: loop, validation, checkpoints, what is written and shown."""
