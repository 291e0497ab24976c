"""Segment a file with a model, and write the outputs to files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_unet3d.cli.tasks.follow import follow
from napari_unet3d.cli.tasks.inputs import SWAPPED, open_image
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.io.outputs import check_output, check_paths
from napari_unet3d.session.segmenting import segment_to_files
from napari_unet3d.session.session import NamedModel, RunSettings, Session


def predict_file(
    model: Path,
    image: Path,
    output: Path,
    config: PredictionConfig,
    *,
    times: Sequence[int] | None = None,
    outputs: Mapping[str, Path] | None = None,
    overwrite: bool = False,
    reading: Mapping[str, Any] | None = None,
    domain: str | None = None,
    network: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Segment an image file and write the labels, and more outputs, to files.

    Parameters
    ----------
    model, image, output
        Files or folders: the model, the stack, and the labels to be written.
    config
        Device, tile, memory.
    times
        Time points to predict, all of them when None.
    outputs
        Where more outputs are written, by the names in `prediction.outputs`.
    overwrite
        Whether files of these names may be replaced.
    reading
        Axes and voxel size, where those of the image file are wrong.
    domain
        The kind of stack, for a universal model; that which it was saved for when None.
    network
        Settings of the network that take the place of the model's.

    Returns
    -------
    list of Path
        The files that were written, the labels first.
    """
    paths = {"labels": output, **(outputs or {})}
    check_paths(list(paths.values()), [model, image])
    for path in paths.values():
        check_output(path, overwrite=overwrite)
    named = NamedModel.load(model)
    if domain is not None:
        named = replace(named, bundle=named.bundle.of_domain(domain))
    if network:
        named = replace(named, bundle=named.bundle.with_network(network))
    volume = open_image(image, SWAPPED, reading)
    volume.check()
    session = Session(
        volume=volume,
        image_path=image,
        settings=RunSettings(
            prediction=config,
            outputs=tuple(outputs or ()),
            times=None if times is None else tuple(times),
        ),
        model=named,
    )
    return segment(session, paths, overwrite=overwrite)


def segment(
    session: Session,
    paths: Mapping[str, Path],
    *,
    overwrite: bool,
    each: Callable[[Any], object] | None = None,
) -> list[Path]:
    """Segment the image of a session with its model, into files; as `segment_to_files`.

    Parameters
    ----------
    session, paths, overwrite
        As in `segment_to_files`.
    each
        Called with every event.
    """
    return follow(segment_to_files(session, paths, overwrite=overwrite), "predicting", each)
