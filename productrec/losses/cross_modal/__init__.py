"""Losses between images and titles, in both directions."""
