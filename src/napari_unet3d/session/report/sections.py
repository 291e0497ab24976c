"""The sections of a report on data, annotation, model and versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from napari_unet3d.config import BACKGROUND, PredictionConfig, TrainingConfig
from napari_unet3d.data.marks import slice_state
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.geometry import parameter_count
from napari_unet3d.session.report.content import Chart, Paragraph, Section, Series, Table
from napari_unet3d.session.session import Session
from napari_unet3d.session.texts import show_duration

NOT_KNOWN = "not known"
NOT_MEASURED = "not measured"
_PACKAGES = (
    "napari-unet3d",
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "zarr",
    "tifffile",
    "napari",
)
_MOST_SLICES = 60
"""Rows of the table of slices; a dense annotation has as many as the stack has planes."""


def data_section(session: Session) -> Section:
    """The image: name, shape, voxel size, gray values."""
    volume, bundle = session.volume, _bundle(session)
    rows: list[tuple[str, str]] = []
    if volume is None:
        rows += [("Image", f"{NOT_KNOWN}: the image was not given to this report")]
        if bundle is not None:
            rows.append(("Voxel size z × y × x", _size(bundle.voxel_size, bundle.unit)))
    else:
        rows += [
            ("Image", volume.name),
            ("File", NOT_KNOWN if session.image_path is None else session.image_path.name),
            ("Voxels z × y × x", describe_shape(volume.shape)),
            ("Channels, time points", f"{volume.n_channels}, {volume.n_times}"),
            ("Voxel size z × y × x", _size(volume.voxel_size, volume.unit)),
            ("Number format", str(volume.dtype)),
        ]
    if bundle is None:
        rows.append(("Gray values", NOT_MEASURED))
    else:
        gray = bundle.intensity
        for i in range(gray.n_channels):
            low, high = gray.clip[i]
            name = "Gray values" if gray.n_channels == 1 else f"Gray values, channel {i}"
            rows.append(
                (
                    name,
                    f"{low:g} % percentile {gray.low[i]:.4g}, {high:g} % percentile "
                    f"{gray.high[i]:.4g}; mean {gray.mean[i]:.4g}, std {gray.std[i]:.4g} when "
                    "clipped to these",
                )
            )
    notes = () if volume is None else tuple(Paragraph(note) for note in volume.notes)
    return Section("Data", (Table((), tuple(rows)), *notes))


def slices_section(session: Session) -> Section:
    """The annotated slices with their states and counts."""
    annotation, bundle = session.annotation, _bundle(session)
    title = "Annotated slices"
    if annotation is None:
        record = None if bundle is None else bundle.record
        rows = [
            (ref, use)
            for refs, use in (
                (() if record is None else record.trained_slices, "trained on"),
                (() if record is None else record.held_out_slices, "held out, measured on"),
            )
            for ref in refs
        ]
        missing = Paragraph("States and voxels are not known: the annotation was not given.")
        if not rows:
            return Section(title, (missing,))
        return Section(title, (Table(("Slice", "Use"), tuple(rows[:_MOST_SLICES])), missing))
    slices = annotation.slices()
    columns = ("Slice", "State", "Labelled", "Background", *(c.name for c in annotation.classes))
    values = (BACKGROUND, *(c.value for c in annotation.classes))
    table = tuple(
        (
            str(s.ref),
            slice_state(s, annotation.held_out, session.accepted.keys()),
            f"{sum(s.counts.values()) / s.n_voxels:.0%}".replace("%", " %"),
            *(f"{s.counts.get(value, 0):,}" for value in values),
        )
        for s in slices[:_MOST_SLICES]
    )
    note = (
        "Labelled: share of the slice. Numbers are labelled voxels; where slices cross, a voxel "
        "counts on one of them."
    )
    if len(slices) > _MOST_SLICES:
        note += f" {len(slices) - _MOST_SLICES} more slices are not listed."
    sources = tuple(
        Paragraph(f"{ref}: accepted from a prediction ({session.accepted[ref]}).")
        for ref in sorted(session.accepted)
    )
    return Section(
        title, (Table(columns, table, note), *sources) if table else (Paragraph("None."),)
    )


def model_section(session: Session) -> Section:
    """Network, training and settings."""
    bundle = _bundle(session)
    if bundle is None:
        return Section("Model and settings", (Paragraph("No model was trained."),))
    record, network = bundle.record, bundle.network
    budget = "used up" if record.completed else "stopped before it was used up"
    facts = [
        ("Network", f"{network.kind}, {parameter_count(network):,} parameters"),
        *((name, str(value)) for name, value in _layout(network.model_dump(mode="json")).items()),
        ("Pixel classifier", "yes" if bundle.pixels else "no"),
        (
            "Weights of network and pixel classifier",
            f"{bundle.calibration.network:.2f} and {bundle.calibration.pixels:.2f}",
        ),
        ("Trained for", f"{show_duration(record.seconds)}, {record.iterations:,} iterations"),
        ("Budget", budget),
        ("Iterations of the models that it went on from", f"{record.iterations_before:,}"),
        ("Labelled voxels that entered the loss", f"{record.voxels_seen:,}"),
        ("Patch z × y × x", describe_shape(record.patch_shape)),
        ("Device", f"{record.device}, {record.precision}"),
        ("Program that trained", record.version or NOT_KNOWN),
    ]
    settings = _settings(record.training_config, TrainingConfig())
    if session.settings.prediction != PredictionConfig():
        settings += _settings(session.settings.prediction, PredictionConfig())
    note = (
        "Settings without a mark in the last column have their default. Not set: planned from the "
        "stack and the machine."
    )
    return Section(
        "Model and settings",
        (Table((), tuple(facts)), Table(("Setting", "Value", "Changed"), tuple(settings), note)),
    )


def _layout(network: Mapping[str, Any]) -> dict[str, str]:
    names = {
        "widths": "Channels of the levels",
        "stem": "Step of the first convolution",
        "strides": "Strides",
        "kernels": "Kernels",
    }
    given = {name: network[name] for name in names if isinstance(network.get(name), list)}
    levels = {name: [x] if name == "stem" else x for name, x in given.items()}
    return {
        names[name]: "; ".join(
            " × ".join(map(str, x)) if isinstance(x, list) else str(x) for x in level
        )
        for name, level in levels.items()
    }


def _settings(config: Any, default: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    rows = []
    for name in type(config).model_fields:
        value, usual = getattr(config, name), getattr(default, name)
        if hasattr(value, "model_dump"):
            rows += _settings(value, usual, f"{prefix}{name}.")
        else:
            shown = "not set" if value is None else str(value)
            rows.append((f"{prefix}{name}", shown, "" if value == usual else "changed"))
    return rows


def curves_section(session: Session) -> Section:
    """Loss and held-out IoU over time."""
    bundle = _bundle(session)
    history = None if bundle is None else bundle.record.history
    if history is None or not history.loss:
        return Section("Training curves", (Paragraph(f"Curves: {NOT_MEASURED}."),))
    charts = [Chart("Training loss", "seconds", "loss", (Series("", history.loss),))]
    if history.iou:
        iou = Series("", history.iou, marked=True)
        charts.append(Chart("Held-out slices", "seconds", "mean IoU", (iou,), (0.0, 1.0)))
    note = Paragraph(
        "The IoU is that of quick looks while training, on a part of the held-out slices; the "
        "last point is the final measurement."
        if history.iou
        else f"IoU while training: {NOT_MEASURED}, since no slice was held out."
    )
    return Section("Training curves", (*charts, note))


def versions_section() -> Section:
    """Versions of the programs on the machine that makes the report."""
    rows = [(name, _version(name)) for name in _PACKAGES]
    rows += [("Python", platform.python_version()), ("System", platform.platform(terse=True))]
    return Section("Versions", (Table((), tuple(rows), "On the machine that made this report."),))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _size(size: tuple[float, float, float], unit: str) -> str:
    return f"{' × '.join(f'{s:.4g}' for s in size)} {unit}"


def _bundle(session: Session) -> ModelBundle | None:
    return None if session.model is None else session.model.bundle
