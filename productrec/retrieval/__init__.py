"""Retrieval: embedding sets on disk and nearest neighbours in them."""
