"""From any competition's files to batches of pixels: one image table in the middle, and nothing lost on the way."""
