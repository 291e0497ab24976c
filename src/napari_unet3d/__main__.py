"""Entry point: the command line, or napari with the plugin docked when no word is given."""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    """Run ``napari-unet3d``."""
    from napari_unet3d import cli

    sys.exit(cli.run(sys.argv[1:], open_window))


def open_window(**layers: Any) -> None:
    """Open napari with the plugin docked; torch goes first, which Windows needs."""
    import torch  # noqa: F401

    from napari_unet3d.widgets.launch import launch

    launch(**layers)


if __name__ == "__main__":
    main()
