"""Losses: embeddings or logits and class positions in, one scalar out; only training calls them."""
