"""Retrieval: embedding sets on disk and exact nearest neighbours in them."""
