"""The demo: a drawn competition, played to the end."""
