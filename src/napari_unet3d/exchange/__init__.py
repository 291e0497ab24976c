"""Models for other programs, and back. A new format is one file here and one line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from napari_unet3d.exchange.bioimageio import write_package
from napari_unet3d.exchange.onnx import write_onnx
from napari_unet3d.exchange.sample import ExportSample
from napari_unet3d.model.bundle import ModelBundle

Writer = Callable[[ModelBundle, ExportSample, Path], str]
"""Writes a model to a path, checks it there, and returns a sentence about what was checked."""

FORMATS: Mapping[str, Writer] = MappingProxyType({".zip": write_package, ".onnx": write_onnx})
"""Writers by the end of the file's name."""
