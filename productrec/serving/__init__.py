"""Serving: a run that answers for photos over HTTP, on this machine."""
