"""Metrics: NumPy arrays in, plain floats out; without torch, so that a prediction-only machine can use them."""
