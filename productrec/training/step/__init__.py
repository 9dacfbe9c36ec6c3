"""One optimisation step: what it computes, by what rule weights move, and what memory it takes."""
