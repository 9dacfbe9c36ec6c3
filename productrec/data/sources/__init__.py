"""Sources: what a competition hands out, whatever its format, as the rows of an image table."""
