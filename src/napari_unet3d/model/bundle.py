"""A trained model as one file that cannot run code when it is opened.

The file is a safetensors file: tensors, and a JSON text in its header. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.migrations import FORMAT_VERSION, migrate
from napari_unet3d.model.mixture import Calibration, Mixture
from napari_unet3d.model.record import TrainingRecord
from napari_unet3d.networks import AnyNetwork
from napari_unet3d.networks.architecture import Architecture, Network
from napari_unet3d.networks.geometry import excess
from napari_unet3d.networks.layers import fold_batch_norm
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

_STATE = "training/"
"""Prefix of the tensors that only resuming needs."""
_PIXELS = "pixels/"
"""Prefix of the pixel classifier's tensors."""
_TREES = "trees."
"""Prefix, after the other one, of those of its trees."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Header(BaseModel):
    """What a model file describes in JSON; everything else in it is tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    network: AnyNetwork
    classes: Annotated[tuple[ClassInfo, ...], Field(min_length=1, max_length=254)]
    intensity: IntensityNormalization
    voxel_size: tuple[Positive, Positive, Positive]
    unit: Annotated[str, Field(max_length=50)]
    record: TrainingRecord
    calibration: Calibration = Calibration()

    @model_validator(mode="after")
    def _classes_match(self) -> Self:
        if self.network.n_classes != len(self.classes) + 1:
            raise ValueError(
                f"{len(self.classes)} classes do not go with {self.network.n_classes} outputs"
            )
        if len(self.calibration.shift) not in (0, self.network.n_classes):
            raise ValueError("the calibration does not go with the classes")
        if any(len(check.classes) != len(self.classes) for check in self.record.cross_fitted):
            raise ValueError("the checks of annotated slices do not go with the classes")
        if len({c.value for c in self.classes}) != len(self.classes):
            raise ValueError("two classes have the same label value")
        return self


class ModelBundle(_Header):
    """A trained network, and all that is needed to apply it or to train it further.

    Attributes
    ----------
    network
        Configuration of the network.
    classes
        The foreground classes. Output index = position + 1; output 0 is background.
    intensity
        Gray-value statistics of the training stack. Other stacks are normalized by their own.
    voxel_size, unit
        Of the training stack, (z, y, x).
    record
        Training settings, duration, held-out scores.
    calibration
        How the network and the pixel classifier decide together.
    weights
        The network's tensors by name, float32.
    pixels
        The pixel classifier's tensors by name; empty without one.
    state
        What resuming needs besides: the optimizer's moments, the weights that are not averaged,
        and in fp16 the scale of the gradients. May be empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    weights: Mapping[str, Tensor]
    pixels: Mapping[str, Tensor] = Field(default_factory=dict)
    state: Mapping[str, Tensor] = Field(default_factory=dict)

    def build(self) -> Network:
        """The network with its weights, on the CPU, in eval mode."""
        network = self.network.build()
        network.load_state_dict(dict(self.weights))
        return network.eval()

    def build_pixels(self) -> PixelClassifier | None:
        """The pixel classifier on the CPU, in eval mode; None for a network that stands alone."""
        if not self.pixels:
            return None
        classifier = _make_pixels(self.network, self.pixels)
        classifier.load_state_dict(dict(self.pixels))
        return classifier.eval().requires_grad_(False)

    def build_mixture(self, *, folded: bool) -> Mixture:
        """Network and pixel classifier with their calibration, on the CPU, in eval mode.

        Parameters
        ----------
        folded
            Whether batch norms are taken into the convolutions before them, which is faster
            and changes the outputs by rounding errors only.
        """
        network = fold_batch_norm(self.build()) if folded else self.build()
        return Mixture(network, self.build_pixels(), self.calibration, self.voxel_size).eval()

    def without_state(self) -> ModelBundle:
        """The same model without `state`: it can be applied and fine-tuned, but not resumed."""
        return self.model_copy(update={"state": {}})

    def save(self, path: str | os.PathLike[str] | Replacement) -> Path:
        """Write the bundle to one file; an older file survives a failure.

        Parameters
        ----------
        path
            The file, which may replace an older one; a symbolic link is followed. Or a
            `Replacement` that was made before a long run, so that nothing newer is replaced.

        Raises
        ------
        BadInputError
            The folder is missing or cannot be written to, or the file cannot be replaced.
        RunFailedError
            Writing failed, for example because the disk is full.
        """
        place = path if isinstance(path, Replacement) else Replacement(path)
        header = _Header.model_validate(self.model_dump(exclude={"weights", "pixels", "state"}))
        groups = {"": self.weights, _PIXELS: self.pixels, _STATE: self.state}
        tensors = {
            prefix + name: tensor.detach().cpu().contiguous()
            for prefix, group in groups.items()
            for name, tensor in group.items()
        }
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "bundle": header.model_dump_json(),
        }
        try:
            # Not safetensors' own writer: its files are readable by their owner only.
            data = save(tensors, metadata)
        except SafetensorError as error:
            raise RunFailedError(f"{place.path} could not be written: {error}") from error
        place.write(data)
        return place.path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ModelBundle:
        """Open a bundle of this format version or an older one.

        Raises
        ------
        BadInputError
            The file is missing, no bundle, truncated, of a newer version, or its parts do
            not go together.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise BadInputError(f"{path} is not there: give the path of a {SUFFIX} file")
        _check_header_size(path)
        header, tensors = _read(path)
        _check_values(path, tensors)
        groups: dict[str, dict[str, Tensor]] = {"": {}, _PIXELS: {}, _STATE: {}}
        for name, tensor in tensors.items():
            prefix = _prefix(name)
            groups[prefix][name.removeprefix(prefix)] = tensor
        weights, pixels, state = groups.values()
        if header.calibration.pixels and not pixels:
            raise BadInputError(f"{path} is damaged: its pixel classifier is missing")
        if pixels and not (pixels["std"] > 0).all():
            raise BadInputError(f"{path} is damaged: 'pixels/std' must be positive")
        if _has_trees(pixels):
            features = feature_count(header.network.in_channels, MORE_SCALES)
            for name, least, most in (("feature", 0, features - 1), ("share", 0, 1)):
                found = pixels[_TREES + name]
                if not ((found >= least) & (found <= most)).all():
                    name = f"{_PIXELS}{_TREES}{name}"
                    raise BadInputError(f"{path} is damaged: '{name}' is out of range")
        return cls(**dict(header), weights=weights, pixels=pixels, state=state)


def _make_pixels(config: Architecture, names: Collection[str]) -> PixelClassifier:
    """A pixel classifier that has tensors of these names."""
    trees = ObliviousTrees(config.n_classes) if _has_trees(names) else None
    return PixelClassifier(config.in_channels, config.n_classes, trees=trees)


def _has_trees(names: Collection[str]) -> bool:
    """Whether the tensors of a pixel classifier are those of one with trees."""
    return any(name.startswith(_TREES) for name in names)


def _prefix(name: str) -> str:
    """The group of a tensor in a file."""
    return next((prefix for prefix in (_STATE, _PIXELS) if name.startswith(prefix)), "")


def _check_header_size(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > min(_LARGEST_HEADER, path.stat().st_size):
        raise BadInputError(f"{path} is no {SUFFIX} model, or it is truncated: copy it again")


def _read(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    """The header, and the tensors that the model needs, in the shapes that it needs."""
    try:
        with safe_open(path, framework="pt") as file:
            header = _read_header(path, file.metadata() or {})
            slices = {n: file.get_slice(n) for n in file.keys()}  # noqa: SIM118
            if not header.calibration.pixels:
                slices = {n: s for n, s in slices.items() if _prefix(n) != _PIXELS}
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


def _read_header(path: Path, metadata: Mapping[str, str]) -> _Header:
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
        return _Header.model_validate(header)
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
        if any(n.startswith(_PIXELS) for n in shapes):
            names = {n.removeprefix(_PIXELS) for n in shapes}
            classifier = _make_pixels(config, names)
            expected |= {_PIXELS + n: tuple(t.shape) for n, t in classifier.state_dict().items()}
    learned = {n: shape for n, shape in shapes.items() if not n.startswith(_STATE)}
    raw = _STATE + "weights/"
    resumed = {n.removeprefix(raw): shape for n, shape in shapes.items() if n.startswith(raw)}
    wrong = sorted(set(learned.items()) ^ set(expected.items()))
    wrong += sorted(set(resumed.items()) - set(expected.items()))
    if wrong:
        raise BadInputError(f"{path} is damaged: weight {wrong[0][0]!r} does not fit the network")


def _check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    if any(t.is_floating_point() and not t.isfinite().all() for t in tensors.values()):
        raise BadInputError(f"{path} holds weights that are not finite: train it again")
    learned = (t for n, t in tensors.items() if _prefix(n) != _STATE and t.numel())
    if (largest := max(float(t.abs().max()) for t in learned)) > _LARGEST_WEIGHT:
        raise BadInputError(
            f"{path} holds weights as large as {largest:.1g}, with which no network gives "
            "numbers: train it again"
        )
