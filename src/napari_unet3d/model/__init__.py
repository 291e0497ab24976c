"""The network, its arithmetic and planning, and the bundle it is saved in."""
