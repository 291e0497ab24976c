"""`napari-unet3d export` and `import`: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from napari_unet3d.cli.options import Domain, Overwrite, Quiet, file_argument, file_option
from napari_unet3d.cli.terminal import errors, tell


def export(
    model: Annotated[Path, file_argument("MODEL", "A model, *.unet3d.")],
    output: Annotated[
        Path,
        file_option(
            "--output",
            "-o",
            metavar="OUT",
            text="*.zip: a bioimage.io package. *.onnx: ONNX, for tiles of one shape.",
        ),
    ],
    sample: Annotated[
        Path,
        file_option(
            "--sample", metavar="IMAGE", text="A stack, whose middle goes along to check the file."
        ),
    ],
    domain: Domain = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a model for other programs: network, pixel classifier and calibration in one.

    The file is opened and compared with the model before it is kept.
    """
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.exchanging import export_model

    tell(export_model(model, output, sample, domain=domain, overwrite=overwrite))


def import_(
    package: Annotated[
        Path, file_argument("PACKAGE", "A bioimage.io package that napari-unet3d exported, *.zip.")
    ],
    output: Annotated[
        Path, file_option("--output", "-o", metavar="MODEL", text="The model, *.unet3d.")
    ],
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Take the model out of a package. No code in the package is run."""
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.exchanging import import_model

    tell(f"Written: {import_model(package, output, overwrite=overwrite)}")
