"""Export models to other programs, and import them."""

from __future__ import annotations

from pathlib import Path

from napari_unet3d.cli.tasks.inputs import open_image
from napari_unet3d.cli.tasks.models import check_model_path, save_model
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.data.io.targets import check_target
from napari_unet3d.errors import BadInputError
from napari_unet3d.exchange import FORMATS
from napari_unet3d.exchange.bioimageio import read_package
from napari_unet3d.exchange.sample import ExportSample
from napari_unet3d.model.bundle import ModelBundle

_USAGE = "export takes MODEL; give an image with --sample"


def export_model(
    model: Path, output: Path, sample: Path, *, domain: str | None = None, overwrite: bool
) -> str:
    """Write a model in the format of the output's name; returns what was checked.

    Parameters
    ----------
    model, output, sample
        Files of the model, of what is written, and of a stack.
    domain
        The kind of stack that a universal network is exported for.
    overwrite
        Whether the output may be replaced.

    Raises
    ------
    BadInputError
        A file cannot be used, the format is unknown, or a package that it needs is missing.
    RunFailedError
        The file could not be written, or another program gives other results.
    """
    output = user_path(output)
    if output.suffix not in FORMATS:
        raise BadInputError(f"{output}: the name must end in {' or '.join(FORMATS)}")
    check_target(output, overwrite=overwrite)
    bundle = ModelBundle.load(model)
    if domain is not None:
        bundle = bundle.of_domain(domain)
    volume = open_image(sample, _USAGE)
    if volume.n_channels != bundle.network.in_channels:
        raise BadInputError(
            f"The model has {bundle.network.in_channels} channels, the sample {volume.n_channels}: "
            "give a stack as the model was trained on"
        )
    checked = FORMATS[output.suffix](
        bundle, ExportSample.of(volume, sample.name, bundle.intensity.clip), output
    )
    return f"Written: {output}; {checked}"


def import_model(package: Path, output: Path, *, overwrite: bool) -> Path:
    """Save the model of a package; returns its path.

    Raises
    ------
    BadInputError
        The package is none of this program, or the output cannot be written.
    """
    output = check_model_path(output, overwrite=overwrite)
    save_model(read_package(package), output)
    return output
