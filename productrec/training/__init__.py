"""Training: the loop, the optimiser, and checkpoints that a run resumes from."""
