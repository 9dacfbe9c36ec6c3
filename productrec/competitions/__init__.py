"""What a competition wants, and the files that are made for it."""
