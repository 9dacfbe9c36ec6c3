"""Curation: near-duplicates, folds, and what is held out."""
