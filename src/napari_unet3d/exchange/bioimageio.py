"""Packages of the bioimage.io model zoo: written, checked with bioimageio.core, and opened again.

A package holds the whole decision as PyTorch source and weights, so any program that runs
bioimageio.core gives our labels without this program. It also holds the model file itself, which is
what this program opens: the source in a package is never run here.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import zipfile
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_unet3d.data.boxes import slice_box
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.exchange import source
from napari_unet3d.exchange.card import model_card
from napari_unet3d.exchange.sample import (
    EPS,
    ExportSample,
    build_portable,
    check_exportable,
    depends_on_block,
    portable_arguments,
    surroundings,
    used_pixels,
)
from napari_unet3d.model import portable
from napari_unet3d.model.bundle import SUFFIX, ModelBundle
from napari_unet3d.session.report import pictures
from napari_unet3d.session.report.html import png

_ARCHITECTURE, _WEIGHTS, _MODEL = "unet3d_model.py", "weights.pt", f"model{SUFFIX}"
COVER = "cover.png"
"""Name of the picture in a package."""
_INPUT, _PROBABILITIES, _LABELS = "image.npy", "probabilities.npy", "labels.npy"
_SHORTEST_NAME = 5
"""Characters of the name of a model, at least."""
_COVER_SCALE = 4
"""Pixels of the cover for a voxel, along both axes."""
_LARGEST_MODEL = 2**29
"""Bytes of a model in a package; that of the paper's network has 80 million."""
PACKAGE_ERRORS = (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged, encrypted or strange package raises."""


def write_package(bundle: ModelBundle, sample: ExportSample, path: Path) -> str:
    """Write a bioimage.io package, and let bioimageio.core test it.

    Returns
    -------
    str
        What bioimageio.core says.

    Raises
    ------
    BadInputError
        bioimageio.core is not installed, or the channels are clipped at different percentiles.
    RunFailedError
        bioimageio.core finds a fault, or gives other results.
    """
    core, spec, v05 = _libraries()
    check_exportable(bundle)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_files(bundle, sample, folder, path.stem)
        try:
            described = _describe(v05, bundle, sample, folder, _name(path))
            packed = spec.save_bioimageio_package(described, output_path=folder / "package.zip")
        except ValueError as error:  # what pydantic raises
            raise RunFailedError(f"The package could not be described: {error}") from error
        summary = core.test_model(packed)
        if summary.status != "passed":
            raise RunFailedError(f"bioimageio.core does not accept the package: {summary.format()}")
        Replacement(path).write(Path(packed).read_bytes())
    return f"bioimageio.core {version('bioimageio.core')} tested it: {summary.status}"


def read_package(path: Path) -> ModelBundle:
    """Open the model in a package that this program wrote; no source in it is run.

    Raises
    ------
    BadInputError
        It is no package, or not one of this program.
    """
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / _MODEL
        try:
            with zipfile.ZipFile(path) as package:
                info = package.getinfo(_MODEL)
                if info.file_size > _LARGEST_MODEL:
                    raise BadInputError(
                        f"{path} holds a model of {info.file_size} bytes, {_LARGEST_MODEL} are the "
                        "most"
                    )
                with package.open(info) as packed, model.open("wb") as file:
                    shutil.copyfileobj(packed, file)
        except KeyError as error:
            raise BadInputError(
                f"{path} is a package of another program: it holds no {_MODEL}. Only models that "
                "napari-unet3d exported can be opened."
            ) from error
        except PACKAGE_ERRORS as error:
            raise BadInputError(f"{path} is no bioimage.io package: {error}") from error
        return ModelBundle.load(model)


def _name(path: Path) -> str:
    """A name as the specification allows it, from that of a file."""
    name = re.sub(r"[^A-Za-z0-9_+\- ()]", "_", path.stem)
    return name if len(name) >= _SHORTEST_NAME else f"napari-unet3d {name}"


def _write_files(bundle: ModelBundle, sample: ExportSample, folder: Path, name: str) -> None:
    """Everything that a package holds but its description."""
    bundle.without_state().save(folder / _MODEL)
    tensors = portable.state(bundle.weights, used_pixels(bundle))
    buffer = io.BytesIO()
    torch.save({n: t.contiguous() for n, t in tensors.items()}, buffer)
    (folder / _WEIGHTS).write_bytes(buffer.getvalue())
    (folder / _ARCHITECTURE).write_text(source.portable_source(_version()), encoding="utf-8")
    (folder / "README.md").write_text(model_card(bundle, name), encoding="utf-8")
    image = sample.normalized(bundle.intensity.clip[0])
    probabilities, labels = build_portable(bundle, sample)(image)
    np.save(folder / _INPUT, sample.image[None].astype(np.float32))
    np.save(folder / _PROBABILITIES, probabilities.numpy())
    np.save(folder / _LABELS, labels.numpy())
    _write_cover(bundle, sample, labels[0, 0].numpy(), folder / COVER)


def _write_cover(bundle: ModelBundle, sample: ExportSample, labels: Any, path: Path) -> None:
    """The middle slice, and its segmentation beside it."""
    volume = Volume.from_array(sample.image, axes="CZYX")
    ref = SliceRef(0, volume.shape[0] // 2)
    gray = pictures.gray(volume, ref)
    box = slice_box(volume.shape, ref)
    found = labels[box.start[0]].astype(np.uint8)
    colored = pictures.with_classes(gray, found, bundle.classes)
    both = np.concatenate([gray, colored], 1).repeat(_COVER_SCALE, 0).repeat(_COVER_SCALE, 1)
    path.write_bytes(png(both))


def _describe(v05: Any, bundle: ModelBundle, sample: ExportSample, folder: Path, name: str) -> Any:
    """The description that bioimageio.spec validates."""

    def file(path: str) -> Any:
        return v05.FileDescr(source=folder / path)

    space = ("z", "y", "x")
    unit = {"µm": "micrometer", "nm": "nanometer", "mm": "millimeter"}.get(bundle.unit)
    sizes = dict(zip(space, map(_scale, bundle.voxel_size), strict=True))
    axes = [
        v05.BatchAxis(),
        v05.ChannelAxis(
            id="channel", channel_names=[f"c{i}" for i in range(bundle.network.in_channels)]
        ),
        *(
            v05.SpaceInputAxis(
                id=a, size=v05.ParameterizedSize(min=1, step=1), scale=sizes[a], unit=unit
            )
            for a in space
        ),
    ]

    def output_axes(channels: list[str]) -> list[Any]:
        return [
            v05.BatchAxis(),
            v05.ChannelAxis(id="channel", channel_names=channels),
            *(
                v05.SpaceOutputAxis(
                    id=a,
                    size=v05.SizeReference(tensor_id="image", axis_id=a),
                    scale=sizes[a],
                    unit=unit,
                )
                for a in space
            ),
        ]

    low, high = bundle.intensity.clip[0]
    steps = [
        v05.EnsureDtypeDescr(kwargs=v05.EnsureDtypeKwargs(dtype="float32")),
        v05.ClipDescr(
            kwargs=v05.ClipKwargs(axes=list(space), min_percentile=low, max_percentile=high)
        ),
        # Its statistics are those of the image before it was clipped.
        v05.ZeroMeanUnitVarianceDescr(
            kwargs=v05.ZeroMeanUnitVarianceKwargs(axes=list(space), eps=EPS)
        ),
    ]
    classes = ["background", *(c.name for c in bundle.classes)]
    values = [0, *(c.output_value for c in bundle.classes)]
    return v05.ModelDescr(
        name=name,
        description="Segmentation of 3D microscopy stacks, trained on annotated slices. "
        + _dependence(bundle),
        cite=[
            v05.CiteEntry(
                text="Çiçek et al. 2016, 3D U-Net: Learning Dense Volumetric Segmentation from "
                "Sparse Annotation, MICCAI",
                doi="10.1007/978-3-319-46723-8_49",
            )
        ],
        documentation=file("README.md"),
        covers=[file(COVER)],
        attachments=[file(_MODEL)],
        tags=["3d", "segmentation", "unet3d", bundle.network.kind],
        inputs=[
            v05.InputTensorDescr(
                id="image",
                axes=axes,
                test_tensor=file(_INPUT),
                data=v05.IntervalOrRatioDataDescr(type="float32"),  # as the network gets it
                preprocessing=steps,
            )
        ],
        outputs=[
            v05.OutputTensorDescr(
                id="probabilities",
                axes=output_axes(classes),
                test_tensor=file(_PROBABILITIES),
                data=v05.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
            ),
            v05.OutputTensorDescr(
                id="labels",
                description=", ".join(f"{v} {n}" for v, n in zip(values, classes, strict=True)),
                axes=output_axes(["label"]),
                test_tensor=file(_LABELS),
                data=v05.NominalOrOrdinalDataDescr(
                    type="float32", values=[float(v) for v in values]
                ),
            ),
        ],
        weights=v05.WeightsDescr(
            pytorch_state_dict=v05.PytorchStateDictWeightsDescr(
                source=folder / _WEIGHTS,
                architecture=v05.ArchitectureFromFileDescr(
                    source=folder / _ARCHITECTURE,
                    callable=source.ENTRY,
                    kwargs=portable_arguments(bundle, sample),
                ),
                pytorch_version=torch.__version__.partition("+")[0],
            )
        ),
    )


def _scale(size: float) -> float:
    """A voxel size by which any number of voxels can be multiplied and divided without rounding.

    bioimageio.spec does so, and refuses 96 voxels of 0.8 µm otherwise.
    """
    return float(np.float32(size))


def _dependence(bundle: ModelBundle) -> str:
    """How much of a stack a voxel of the result depends on."""
    if depends_on_block(bundle.network):
        return (
            "Its norms take the statistics of the block that it is given, so each voxel depends on "
            "all others: give the whole stack, or large blocks."
        )
    z, y, x = surroundings(bundle)
    return (
        f"A voxel depends on {z}, {y} and {x} voxels around it along z, y and x: blocks of a "
        "larger stack need as much overlap on each side."
    )


def _libraries() -> tuple[Any, Any, Any]:
    try:
        import bioimageio.core
        import bioimageio.spec
        import bioimageio.spec.model.v0_5 as v05
    except ImportError as error:
        raise BadInputError(
            f"{error.name} is not installed: pip install 'napari-unet3d[exchange]'"
        ) from error
    return bioimageio.core, bioimageio.spec, v05


def _version() -> str:
    try:
        return version("napari-unet3d")
    except PackageNotFoundError:
        return ""
