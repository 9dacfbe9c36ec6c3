"""The search over a recipe's settings."""
