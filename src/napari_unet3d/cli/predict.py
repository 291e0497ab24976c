"""`napari-unet3d predict`: its options, one of them for each output."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_unet3d.cli import settings
from napari_unet3d.cli.options import (
    AsJson,
    Axes,
    Device,
    Domain,
    Overwrite,
    Quiet,
    VoxelSize,
    file_argument,
    file_option,
)
from napari_unet3d.cli.signals import terminating
from napari_unet3d.cli.terminal import errors, tell, tell_json
from napari_unet3d.config import PredictionConfig
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.prediction.outputs import optional_outputs

Precision = Literal["auto", "bf16", "fp16", "fp32", "int8"]


def _with_outputs(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each optional output, in place of its ``**outputs``."""
    signature = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(
            output.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, file_option(text=output.help)],
        )
        for output in optional_outputs()
    ]
    given = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in signature.parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    place = 1 + [parameter.name for parameter in given].index("output")
    given[place:place] = options
    command.__signature__ = signature.replace(parameters=given)  # type: ignore[attr-defined]
    return command


@_with_outputs
def predict(
    model: Annotated[Path, file_argument("MODEL", "A model, *.unet3d.")],
    image: Annotated[
        Path,
        file_argument("IMAGE", "TIFF or OME-Zarr; may exceed the memory. Or a folder of stacks."),
    ],
    output: Annotated[
        Path,
        file_option(
            "--output", "-o", metavar="OUT", text="*.tif or *.ome.zarr; a folder for a folder."
        ),
    ],
    times: Annotated[
        str | None, typer.Option(help="Time points of a series, as in 0,3. Default: all.")
    ] = None,
    device: Device = "auto",
    memory: Annotated[
        float | None, typer.Option(help="GiB that may be used. Default: from what is free.")
    ] = None,
    overwrite: Overwrite = False,
    overlap: Annotated[
        float,
        typer.Option(help="What tiles have in common, 0 to 0.75 of what the network sees."),
    ] = PredictionConfig().overlap,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X", help="Voxels (z,y,x) the network sees at once. Default: planned."
        ),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Number format; auto picks what is fast here.")
    ] = "auto",
    mirrors: Annotated[
        bool, typer.Option("--mirrors", help="See each tile mirrored, too: eight times the work.")
    ] = False,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="network.NAME=VALUE",
            help="A setting of the network, such as network.pruned=1.",
        ),
    ] = None,
    domain: Domain = None,
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **outputs: Any,
) -> None:
    """Segment a whole stack with a model. 0 is background, classes keep their numbers."""
    config = settings.prediction(
        device=device,
        memory=settings.gibibytes(memory),
        overlap=overlap,
        tile_shape=settings.three("--tile", tile, int),
        precision=precision,
        mirrors=mirrors,
    )
    chosen = settings.time_points(times)
    reading = settings.reading(axes, voxel_size)
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks import inputs
    from napari_unet3d.cli.tasks.batch import is_batch
    from napari_unet3d.cli.tasks.predicting import predict_file

    if model.suffix != ".unet3d":
        inputs.refuse_model(image, inputs.SWAPPED)
    began = time.monotonic()
    if is_batch(image, output):
        if domain is not None or others:
            raise BadInputError("--domain, --set: give one image; not for a folder of stacks")
        _predict_folder(model, image, output, config, chosen, outputs, overwrite, reading, as_json)
        return
    with terminating():
        paths = predict_file(
            model,
            image,
            output,
            config,
            times=chosen,
            outputs={name: path for name, path in outputs.items() if path is not None},
            overwrite=overwrite,
            reading=reading,
            domain=domain,
            network=settings.of_network(others or []),
        )
    if as_json:
        seconds = round(time.monotonic() - began, 3)
        tell_json({"segmentation": output, **outputs, "seconds": seconds, "notes": errors.notes})
        return
    for path in paths:
        tell(f"Written: {path}")


def _predict_folder(
    model: Path,
    folder: Path,
    output: Path,
    config: PredictionConfig,
    times: list[int] | None,
    outputs: dict[str, Path | None],
    overwrite: bool,
    reading: dict[str, Any],
    as_json: bool,
) -> None:
    """Segment all stacks of a folder, and tell which of them failed."""
    from napari_unet3d.cli.tasks.batch import predict_folder
    from napari_unet3d.session.segmenting import summary

    if asked := [name for name, path in outputs.items() if path is not None]:
        raise BadInputError(
            f"--{asked[0]} names one file, and '{folder}' is a folder of stacks: predict the stack "
            "that needs it by itself."
        )
    began = time.monotonic()
    with terminating():
        results = predict_folder(
            model, folder, output, config, times=times, overwrite=overwrite, reading=reading
        )
    text = summary(results, len(results))
    if as_json:
        tell_json(
            {
                "stacks": {
                    str(r.path): {"written": r.written, "problem": r.problem or None}
                    for r in results
                },
                "seconds": round(time.monotonic() - began, 3),
                "notes": errors.notes,
            }
        )
    else:
        for path in (path for result in results for path in result.written):
            tell(f"Written: {path}")
        tell(f"{text}.")
    if failed := [f"'{r.path.name}': {r.problem}" for r in results if r.problem]:
        raise RunFailedError("\n".join([f"{text}.", *failed]))
