"""productrec: tell near-identical products apart, from a competition's files to a scored submission."""

__version__ = "0.1.0"
