"""Weights that a backbone starts from: where they are looked for, and what their files hold."""
