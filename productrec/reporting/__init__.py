"""Pages that people look at: what a run sees, where it fails, and which labels are wrong."""
