"""From clean notebooks to the book: run one, assemble the pages, check that they read offline."""
