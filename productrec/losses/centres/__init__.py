"""Learned centres of classes: the modules that hold them, and what is done with them after training."""
