"""Drawn embeddings for the tests of re-ranking."""

import numpy as np


def draw(count, dim=8, seed=0):
    """Unit rows without any order (count, dim), float32."""
    values = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def draw_clustered(count, classes, noise, *, dim=32, seed=0):
    """Unit rows (count, dim) about a centre a class, and their labels (count,), every class in turn."""
    generator = np.random.default_rng(seed)
    centres = draw(classes, dim, seed + 1)
    labels = np.arange(count) % classes
    values = centres[labels] + noise / np.sqrt(dim) * generator.standard_normal((count, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32), labels


def draw_curve(points):
    """Unit rows along a quarter of a great circle (points, 2), float32: near ones lead to far ones."""
    angles = np.linspace(0, np.pi / 2, points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
