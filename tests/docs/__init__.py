"""Checks of the documentation: what its pages name is there, and what they show works."""
