"""One piece of work: train, then segment; and its events in words."""
