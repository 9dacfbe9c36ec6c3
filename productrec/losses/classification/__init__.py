"""The loss of the classification head."""
