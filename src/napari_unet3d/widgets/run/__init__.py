"""One run in its thread, its report and its layers."""
