"""Re-ranking and expansion: what a first search found, searched or ordered anew."""
