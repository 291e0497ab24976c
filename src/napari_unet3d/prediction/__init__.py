"""A trained network applied to any stack, tile by tile, and the scores of a result."""
