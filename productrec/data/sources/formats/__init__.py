"""Formats of sources: a file each, whose name is the format's."""
