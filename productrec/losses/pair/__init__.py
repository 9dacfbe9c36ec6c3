"""Losses over the pairs of a batch."""
