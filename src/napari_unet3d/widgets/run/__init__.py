"""A run in its thread, and what is shown of it."""
