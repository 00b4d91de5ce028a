"""A board as pictures: SVG that needs nothing else, its numbers, and links to the votes behind them."""
