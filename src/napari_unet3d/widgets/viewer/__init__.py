"""Layers and the napari viewer: reading, adding, matching and following them."""
