"""From a command to the stages: which runs it speaks of, and which stages are called in which order."""
