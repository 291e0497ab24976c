"""Every knob once: typed, bounded, described.

The form, the command line's help, the documentation and the saved model all read these
models. Arrays are ZYX everywhere; sizes are in voxels unless a name says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

UNLABELLED = 0
BACKGROUND = 1
FIRST_CLASS = 2
AXIS_NAMES = "zyx"
PLANE_NAMES = ("xy", "xz", "yz")
"""Name of the plane that is perpendicular to axis z, y, x."""

CLIP_PERCENTILES = (0.1, 99.9)
"""Percentiles beyond which gray values are clipped: hot pixels are fewer, structures are not."""

Triple = tuple[int, int, int]
VoxelSize = tuple[float, float, float]
Small = Annotated[int, Field(ge=1, le=7)]
SmallTriple = tuple[Small, Small, Small]
_DEVICE = r"^(auto|cpu|mps|cuda(:[0-9]{1,2})?)$"
_NAME = r"^[a-z][a-z0-9_-]{0,49}$"
"""Names of networks, losses and executors, which the modules that know them check."""
_SETTINGS = r"^\s*([A-Za-z_]\w*\s*=\s*[^;\s][^;]*(;\s*|$))*$"
"""Settings as name=value, with a semicolon between two of them."""
Preset = Literal["fast", "balanced", "paper"]
Normalization = Literal["batch", "tile", "instance", "channel", "none"]


def written(settings: Mapping[str, Any]) -> str:
    """Settings as a user writes them: "widths=[16, 32]; deep_supervision=true"."""
    return "; ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassInfo(_Frozen):
    """One class the user paints: its label value, name and color."""

    value: int = Field(ge=FIRST_CLASS, le=255, description="Label value in the annotation.")
    name: str = Field(min_length=1, max_length=200, description="Name shown to the user.")
    color: str = Field(pattern=r"^#[0-9a-fA-F]{6}$", description="Color as #rrggbb.")
    output: int | None = Field(
        None,
        ge=1,
        le=255,
        description="Number of the class in a segmentation; its label value when empty.",
    )

    @property
    def output_value(self) -> int:
        """The number that stands for this class in a segmentation."""
        return self.value if self.output is None else self.output


PALETTE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#910a28",
    "#befaeb", "#0a6464", "#fabea0", "#af5546", "#fa5573", "#6482fa", "#af0a64", "#0aebfa",
    "#dcafbe", "#826482", "#a0460a", "#ebfaa0", "#73cd64", "#0afabe", "#733746", "#cd0aaf",
)  # fmt: skip
"""Seven colors of Okabe and Ito, which color-blind users can tell apart; then those that differ
most from all before them and from painted background. Any two differ by a CIEDE2000 of at least 12,
and of at least 8 as people without red or green cones see them. None is gray, as images are."""


def default_class(value: int, name: str | None = None) -> ClassInfo:
    """The class with label `value`, named and colored by default."""
    color = PALETTE[(value - FIRST_CLASS) % len(PALETTE)]
    return ClassInfo(value=value, name=name or f"class {value}", color=color)


class AugmentationConfig(_Frozen):
    """Random changes of training patches (Çiçek et al. 2016, sec. 3)."""

    flips: bool = Field(True, description="Mirror along random axes.")
    rotation: float = Field(
        180.0,
        ge=0,
        le=180,
        description="Largest rotation within the annotated slice, degrees; `tilt` where its two "
        "voxel sizes differ much.",
    )
    tilt: float = Field(10.0, ge=0, le=180, description="Largest rotation out of it, degrees.")
    scaling: float = Field(0.15, ge=0, lt=0.9, description="Largest relative change of size.")
    contrast: float = Field(0.25, ge=0, lt=1, description="Largest relative change of contrast.")
    brightness: float = Field(0.25, ge=0, le=2, description="Largest shift, in image std.")
    gamma: float = Field(0.2, ge=0, lt=1, description="Largest relative change of gamma.")
    noise: float = Field(0.1, ge=0, le=2, description="Largest noise std, in image std.")
    deformation: float = Field(
        4.0, ge=0, le=20, description="Std of the B-spline control displacements, voxels (paper)."
    )
    deformation_spacing: int = Field(
        32, ge=8, le=256, description="Distance of the B-spline control points, voxels (paper)."
    )
    spatial_share: float = Field(
        0.7, ge=0, le=1, description="Share of patches that are rotated, scaled and deformed."
    )


class TrainingConfig(_Frozen):
    """How a network is trained on a sparse annotation."""

    preset: Preset = Field(
        "balanced",
        description="fast: a preview in seconds; balanced: best per minute; paper: 2016 layout.",
    )
    network: str = Field(
        "unet",
        pattern=_NAME,
        description="Kind of network; a model that is trained further keeps its own.",
    )
    network_settings: str = Field(
        "",
        pattern=_SETTINGS,
        max_length=5000,
        description="Settings of the network in place of the planned ones, as name=value; "
        "name=value. 'napari-unet3d info --networks' lists them.",
    )
    seconds: float | None = Field(
        60.0, gt=0, le=30 * 86400, description="Time budget of the training, seconds."
    )
    iterations: int | None = Field(
        None, ge=1, le=100_000_000, description="Iterations; takes the place of `seconds`."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of weights, sampling, augmentation.")
    device: str = Field(
        "auto",
        pattern=_DEVICE,
        description="auto, cpu, cuda, cuda:N or mps.",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="Number format of the convolutions; auto picks what is fast here.",
    )
    normalization: Normalization | None = Field(
        None, description="Normalization of the network; the preset's when empty."
    )
    patch_shape: Triple | None = Field(
        None, description="Training patch (z, y, x), voxels; planned when empty."
    )
    small_patch_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="First share of the budget that uses patches of a third of the size: many "
        "quick iterations first, more context later. Not for a patch shape that is given, nor "
        "for the paper's network.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Patches per iteration; when empty, 2 in fp32 on a CPU and for very small "
        "stacks, else 1.",
    )
    recompute: bool = Field(
        False,
        description="Compute maps again in the backward pass instead of keeping them: a third of "
        "the memory for a third more time. For patches that do not fit otherwise.",
    )
    learning_rate: float | None = Field(
        None, gt=0, le=10, description="Peak learning rate; the preset's when empty."
    )
    clip_percentiles: tuple[float, float] = Field(
        CLIP_PERCENTILES,
        description="Percentiles of the gray values beyond which they are clipped; widened where "
        "they would cut a painted class. A model that is trained further keeps its own, unless "
        "others than the default are given.",
    )
    pixel_classifier: bool = Field(
        True,
        description="Support the network with a classifier of single voxels, which learns in "
        "seconds; annotated slices decide its weight, and the more of them, the more. Not for the "
        "paper's network.",
    )
    class_shift: bool = Field(
        False,
        description="Shift each class's log-probability to where the IoU on the annotated slices "
        "is largest. A few slices do not tell how far: measured, it cost up to 0.14 IoU and never "
        "gained more than 0.01.",
    )
    schedule: Literal["cosine", "polynomial"] = Field(
        "cosine", description="Decay of the learning rate over the budget."
    )
    optimizer: str = Field(
        "adamw",
        pattern=_NAME,
        description="'adamw', or 'sgd', with Nesterov's momentum, as nnU-Net.",
    )
    momentum: float = Field(0.99, ge=0, lt=1, description="Momentum of 'sgd'.")
    weight_decay: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight decay; when empty 0.01, decoupled, of 'adamw', and 0.00003 of 'sgd'.",
    )
    weight_averaging: float = Field(
        0.99, ge=0, lt=1, description="Decay of the running average of the weights; 0 is off."
    )
    loss: str = Field(
        "ce_dice",
        pattern=_NAME,
        description="Loss over the labelled voxels. 'ce_dice': cross-entropy plus soft Dice; "
        "'focal'; 'lovasz': Lovász-softmax; 'lovasz_focal': both of these.",
    )
    dice_share: float = Field(
        0.8, ge=0, le=1, description="Share of Dice in 'ce_dice'; the rest is cross-entropy."
    )
    focal_gamma: float = Field(
        2.0, ge=0, le=10, description="Exponent of 'focal': how little easy voxels count."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="Cross-entropy weights; 'balanced' favors rare classes."
    )
    rare_share: float = Field(
        0.33, ge=0, le=1, description="Share of patches centered on a class drawn uniformly."
    )
    augmentation: AugmentationConfig = Field(
        default_factory=AugmentationConfig, description="Random changes of the patches."
    )

    @model_validator(mode="after")
    def _some_budget(self) -> Self:
        if self.iterations is None and self.seconds is None:
            raise ValueError("give a budget: seconds or iterations")
        return self

    @field_validator("network_settings", mode="before")
    @classmethod
    def _settings_as_text(cls, settings: Any) -> Any:
        return written(settings) if isinstance(settings, Mapping) else settings

    @field_validator("clip_percentiles")
    @classmethod
    def _percentiles_rise(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        low, high = percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(
                f"clip_percentiles must be two rising numbers within 0…100, got {low:g}, {high:g}"
            )
        return percentiles


class PredictionConfig(_Frozen):
    """How a trained network is applied to a stack."""

    device: str = Field("auto", pattern=_DEVICE, description="auto, cpu, cuda, cuda:N or mps.")
    precision: Literal["auto", "bf16", "fp16", "fp32", "int8"] = Field(
        "auto",
        description="Number format of the convolutions; auto picks what is fast here, and in the "
        "window the precision of the training. int8 is for CPUs: some tiles of the stack show the "
        "range of the maps, and how much changes; where that is too much, fp32 is used.",
    )
    tile_shape: Triple | None = Field(
        None, description="Tile (z, y, x) the network sees, voxels; planned when empty."
    )
    overlap: float = Field(
        0.16,
        ge=0,
        le=0.75,
        description="Voxels that a tile has in common with the next, as a share of what the "
        "network sees; at most half a tile.",
    )
    mirrors: bool = Field(
        False,
        description="Let the network see each tile mirrored along all axes, too, and take the mean "
        "of its probabilities, as nnU-Net does: eight times the work.",
    )
    memory: int | None = Field(
        None, gt=0, description="Bytes that may be used; planned from free memory when empty."
    )
    executor: str = Field(
        "serial",
        pattern=_NAME,
        description="How the blocks of a stack are carried out: serial, one by one.",
    )


SeparationMethod = Literal["connected", "necks", "boundary"]


class ObjectsConfig(_Frozen):
    """How the classes of a segmentation become numbered objects."""

    method: SeparationMethod = Field(
        "necks",
        description="connected: every connected piece is an object. necks: pieces are also cut "
        "where they are narrow, by distance transform and watershed. boundary: as necks, and the "
        "voxels of a boundary class are shared out among the objects beside them.",
    )
    classes: tuple[int, ...] = Field(
        (), description="Numbers of the classes that become objects; all but the boundary's if ()."
    )
    boundary: int | None = Field(
        None, ge=0, description="Number of the class between the objects, for method boundary."
    )
    separation: float = Field(
        0.85,
        ge=0,
        le=1,
        description="Pieces are cut where a neck is narrower than this share of the smaller part: "
        "0 never cuts, 1 cuts at every unevenness.",
    )
    min_volume: float | None = Field(
        None, ge=0, description="Smallest volume of an object, in the cubed unit of the stack."
    )
    min_voxels: int = Field(
        20, ge=0, description="Smallest size of an object, voxels; smaller ones are removed."
    )
    fill_holes: bool = Field(
        True, description="Fill cavities that are enclosed by a class on all sides."
    )
    smoothing: float = Field(
        0.0,
        ge=0,
        le=20,
        description="Std of the smoothing of outlines, shortest voxel edges; 0 leaves them.",
    )
