"""Download: the images of a table of URLs, politely, and again after any interruption."""
