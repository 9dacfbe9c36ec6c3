"""Several processes that train together, and a head that is shared out among them."""
