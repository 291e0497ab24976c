"""Brings the header of a model file from an older format version to the current one.

Settings of the training need no migration: see `read_settings`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Header = dict[str, Any]
"""The description of a model, as `json.loads` gives it; nothing in it is checked yet."""


def _to_2(header: Header) -> Header:
    """Version 2 added the calibration and the pixel classifier; both may be absent."""
    return header


def _to_3(header: Header) -> Header:
    """The pixel classifiers of version 2 saw other features: such a network stands alone.

    Development versions wrote these files, so nobody is told.
    """
    return {name: value for name, value in header.items() if name != "calibration"}


def _to_4(header: Header) -> Header:
    """Version 4 added a class's number in a segmentation, which may be absent."""
    return header


def _to_5(header: Header) -> Header:
    """Version 5 added the kind of the network: until then, each one was a U-Net.

    Since version 5, a model also opens where its settings are not those of the program. Older
    programs would call it damaged; the version lets them ask for an update.
    """
    network = header.get("network")
    if not isinstance(network, dict):
        return header
    return header | {"network": {"kind": "unet"} | network}


def _to_6(header: Header) -> Header:
    """Version 6 added scores slice by slice, the curves, and further evidence; all may be absent.

    Older programs would call a file with them damaged; the version lets them ask for an update.
    """
    return header


def _to_7(header: Header) -> Header:
    """Version 7 added trees to the pixel classifier, and how it judges annotated slices.

    Both may be absent.
    """
    return header


def _to_8(header: Header) -> Header:
    """Version 8 added the stem of a U-Net; without one, its grid is that of the image."""
    return header


def _to_9(header: Header) -> Header:
    """Since version 9, trees may ask about a coarser scale than the perceptron sees.

    Older programs would call a file with such trees damaged; the version lets them ask for an
    update.
    """
    return header


def _to_10(header: Header) -> Header:
    """Version 10 added networks beside the U-Net, and the domains of a universal one."""
    return header


def _to_11(header: Header) -> Header:
    """Version 11 added `unseen_weight` to the record."""
    return header


MIGRATIONS: tuple[Callable[[Header], Header], ...] = (
    _to_2,
    _to_3,
    _to_4,
    _to_5,
    _to_6,
    _to_7,
    _to_8,
    _to_9,
    _to_10,
    _to_11,
)
"""The first one takes a header of version 1 to version 2, and so on."""

FORMAT_VERSION = len(MIGRATIONS) + 1


def migrate(header: Header, version: int) -> Header:
    """A header of format `version`, at least 1, as one of the current format."""
    for migration in MIGRATIONS[version - 1 :]:
        header = migration(header)
    return header
