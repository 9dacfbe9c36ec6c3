"""Losses between embeddings and learned centres of classes."""
