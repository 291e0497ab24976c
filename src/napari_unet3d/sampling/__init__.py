"""Gray values and training patches as tensors on the device."""
