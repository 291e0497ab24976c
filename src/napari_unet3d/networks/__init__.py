"""The networks, their shapes, and the device they run on."""
