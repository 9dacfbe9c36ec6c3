"""Ensembling: several class probabilities become one."""
