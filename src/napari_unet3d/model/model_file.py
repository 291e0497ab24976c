"""Reads model files: what does not go together is refused before anything is allocated."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from napari_unet3d.errors import BadInputError
from napari_unet3d.model.header import Header
from napari_unet3d.model.migrations import FORMAT_VERSION, migrate
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import excess
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import MORE_SCALES, feature_count
from napari_unet3d.pixels.trees import ObliviousTrees

SUFFIX = ".unet3d"
FORMAT = "napari-unet3d"

_LARGEST_HEADER = 16 * 2**20
"""Bytes. A larger header is damaged: that of a model is about 30 kB."""
_SHOWN_OF_AN_ERROR = 200
"""Characters of a text about a damaged file that are shown: a hostile file may hold any text."""
_LARGEST_WEIGHT = 1e15
"""Absolute value. Beyond it, the variances that a normalization computes are infinite in fp32.
Weights of trained networks are below 100, running variances below a million."""

STATE = "training/"
"""Prefix of the tensors that only resuming needs."""
PIXELS = "pixels/"
"""Prefix of the pixel classifier's tensors."""
TREES = "trees."
"""Prefix, after the other one, of those of its trees."""


def read_model_file(path: Path) -> tuple[Header, dict[str, dict[str, Tensor]]]:
    """The header of a model file, and its tensors by group: "", `PIXELS` and `STATE`.

    Raises
    ------
    BadInputError
        The file is missing, no model, truncated, of a newer version, or its parts do not go
        together.
    """
    if not path.is_file():
        raise BadInputError(f"{path} is not there: give the path of a {SUFFIX} file")
    _check_header_size(path)
    header, tensors = _read(path)
    _check_values(path, tensors)
    groups: dict[str, dict[str, Tensor]] = {"": {}, PIXELS: {}, STATE: {}}
    for name, tensor in tensors.items():
        prefix = prefix_of(name)
        groups[prefix][name.removeprefix(prefix)] = tensor
    _check_pixels(path, header, groups[PIXELS])
    return header, groups


def _check_pixels(path: Path, header: Header, pixels: Mapping[str, Tensor]) -> None:
    if header.calibration.pixels and not pixels:
        raise BadInputError(f"{path} is damaged: its pixel classifier is missing")
    if pixels and not (pixels["std"] > 0).all():
        raise BadInputError(f"{path} is damaged: 'pixels/std' must be positive")
    if has_trees(pixels):
        features = feature_count(header.network.in_channels, MORE_SCALES)
        for name, least, most in (("feature", 0, features - 1), ("share", 0, 1)):
            found = pixels[TREES + name]
            if not ((found >= least) & (found <= most)).all():
                name = f"{PIXELS}{TREES}{name}"
                raise BadInputError(f"{path} is damaged: '{name}' is out of range")


def make_pixels(config: Architecture, names: Collection[str]) -> PixelClassifier:
    """A pixel classifier that has tensors of these names."""
    trees = ObliviousTrees(config.n_classes) if has_trees(names) else None
    return PixelClassifier(config.in_channels, config.n_classes, trees=trees)


def has_trees(names: Collection[str]) -> bool:
    """Whether the tensors of a pixel classifier are those of one with trees."""
    return any(name.startswith(TREES) for name in names)


def prefix_of(name: str) -> str:
    """The group of a tensor in a file."""
    return next((prefix for prefix in (STATE, PIXELS) if name.startswith(prefix)), "")


def _check_header_size(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > min(_LARGEST_HEADER, path.stat().st_size):
        raise BadInputError(f"{path} is no {SUFFIX} model, or it is truncated: copy it again")


def _read(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """The header, and the tensors that the model needs, in the shapes that it needs."""
    try:
        with safe_open(path, framework="pt") as file:
            header = _read_header(path, file.metadata() or {})
            slices = {n: file.get_slice(n) for n in file.keys()}  # noqa: SIM118
            if not header.calibration.pixels:
                slices = {n: s for n, s in slices.items() if prefix_of(n) != PIXELS}
            shapes = {n: tuple(s.get_shape()) for n, s in slices.items()}
            _check_size(path, header.network)
            _check_shapes(path, header.network, shapes)
            if not {s.get_dtype() for s in slices.values()} <= {"F32", "I64"}:
                raise BadInputError(f"{path} is damaged: weights must be float32")
            # Copies: Windows cannot replace a file while a tensor is mapped to it.
            return header, {name: file.get_tensor(name).clone() for name in shapes}
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, BadInputError):
            raise
        raise BadInputError(
            f"{path} is no {SUFFIX} model, or it is damaged ({error}): copy or train it again"
        ) from error


def _read_header(path: Path, metadata: Mapping[str, str]) -> Header:
    if metadata.get("format") != FORMAT:
        raise BadInputError(f"{path} is a safetensors file, but no {SUFFIX} model")
    version = metadata.get("format_version", "")
    if not version.isdecimal() or len(version) > 9 or not 0 < int(version) <= FORMAT_VERSION:
        raise BadInputError(
            f"{path} has format version {version[:20]!r}, this program knows up to "
            f"{FORMAT_VERSION}: update napari-unet3d"
        )
    try:
        header = json.loads(metadata["bundle"])
        if isinstance(header, dict):
            header = migrate(header, int(version))
        return Header.model_validate(header)
    except (KeyError, json.JSONDecodeError, RecursionError) as error:
        raise BadInputError(f"{path} is damaged: its description cannot be read") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")[:_SHOWN_OF_AN_ERROR]
        raise BadInputError(
            f"{path} is damaged: {where[:100] or 'its description'}: {reason}"
        ) from error


def _check_size(path: Path, config: Architecture) -> None:
    if (reason := excess(config)) is not None:
        raise BadInputError(
            f"{path} has a network that takes too much memory on any stack: {reason}. Use a "
            "model that napari-unet3d trained"
        )


def _check_shapes(path: Path, config: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> None:
    # On "meta" nothing is allocated: a hostile configuration cannot fill the memory.
    with torch.device("meta"):
        expected = {n: tuple(t.shape) for n, t in config.build().state_dict().items()}
        if any(n.startswith(PIXELS) for n in shapes):
            names = {n.removeprefix(PIXELS) for n in shapes}
            classifier = make_pixels(config, names)
            expected |= {PIXELS + n: tuple(t.shape) for n, t in classifier.state_dict().items()}
    learned = {n: shape for n, shape in shapes.items() if not n.startswith(STATE)}
    raw = STATE + "weights/"
    resumed = {n.removeprefix(raw): shape for n, shape in shapes.items() if n.startswith(raw)}
    wrong = sorted(set(learned.items()) ^ set(expected.items()))
    wrong += sorted(set(resumed.items()) - set(expected.items()))
    if wrong:
        raise BadInputError(f"{path} is damaged: weight {wrong[0][0]!r} does not fit the network")


def _check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    if any(t.is_floating_point() and not t.isfinite().all() for t in tensors.values()):
        raise BadInputError(f"{path} holds weights that are not finite: train it again")
    learned = (t for n, t in tensors.items() if prefix_of(n) != STATE and t.numel())
    if (largest := max(float(t.abs().max()) for t in learned)) > _LARGEST_WEIGHT:
        raise BadInputError(
            f"{path} holds weights as large as {largest:.1g}, with which no network gives "
            "numbers: train it again"
        )
