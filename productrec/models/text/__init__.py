"""Text: titles cut into subwords, and towers that make them embeddings beside those of images."""
