"""What settings are made of: kinds of numbers, what a setting decides, names, and the text they are read from."""
