"""The masked loss and the one training loop."""
