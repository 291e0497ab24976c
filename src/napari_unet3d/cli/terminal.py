"""Where messages go: stderr, so that stdout holds results only."""

from rich.console import Console

errors = Console(stderr=True, highlight=False, soft_wrap=True)
