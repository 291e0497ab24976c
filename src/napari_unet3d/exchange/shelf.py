"""The models of a folder, and what is shown of each."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from napari_unet3d.errors import BadInputError
from napari_unet3d.exchange.bioimageio import COVER, PACKAGE_ERRORS, read_package
from napari_unet3d.exchange.card import model_card
from napari_unet3d.model.bundle import SUFFIX, ModelBundle

_LARGEST_COVER = 2**24
"""Bytes of a picture in a package. Larger ones are not shown."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A model as it is shown before it is used.

    Attributes
    ----------
    path
        Its file.
    bundle
        The model; None where it cannot be used.
    card
        Its card in Markdown; empty where it cannot be used.
    cover
        A PNG of its package; empty without one.
    problem
        Why it cannot be used.
    """

    path: Path
    bundle: ModelBundle | None = None
    card: str = ""
    cover: bytes = b""
    problem: BadInputError | None = None


def models_in(folder: Path) -> list[Path]:
    """Model files and packages of a folder, by name; its own folders are not searched."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix in (SUFFIX, ".zip") and p.is_file())
    except OSError:
        return []


def open_model(path: Path) -> ModelBundle:
    """Open a model file, or the model of a package.

    Raises
    ------
    BadInputError
        It is neither, or cannot be used.
    """
    return read_package(path) if path.suffix == ".zip" else ModelBundle.load(path)


def show_model(path: Path) -> Shown:
    """Open a model and write its card; a problem is part of the result."""
    try:
        bundle = open_model(path)
    except BadInputError as error:
        return Shown(path, problem=error)
    return Shown(path, bundle, model_card(bundle, path.stem), _cover(path))


def _cover(path: Path) -> bytes:
    if path.suffix != ".zip":
        return b""
    try:
        with zipfile.ZipFile(path) as package:
            info = package.getinfo(COVER)
            return package.read(info) if info.file_size <= _LARGEST_COVER else b""
    except (KeyError, *PACKAGE_ERRORS):
        return b""
