"""Sources: what a competition hands out, whatever its layout, as the rows of an image table."""
