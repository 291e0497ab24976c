"""All that touches layers and the viewer."""
