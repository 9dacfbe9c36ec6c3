"""Re-rankings, a file each, known by the file's name."""
