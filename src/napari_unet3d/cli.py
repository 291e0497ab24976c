"""The command line: train, predict, evaluate, info, demo. It iterates the core's generators."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
import numpy as np
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from napari_unet3d.config import ClassInfo, Preset, TrainingConfig, default_class
from napari_unet3d.errors import BadInputError, RunFailedError

T = TypeVar("T")
OpenWindow = Callable[..., None]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def run(arguments: list[str], open_window: OpenWindow) -> int:
    """Carry out a command line; returns the exit code: 0, 1 it failed, 2 bad input."""
    try:
        app(arguments, obj=open_window, standalone_mode=False)
    except BadInputError as error:
        return _complain(error, 2)
    except click.UsageError as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted", 1)
    except RunFailedError as error:
        return _complain(error, 1)
    except Exception as error:
        if os.environ.get("NAPARI_UNET3D_DEBUG"):
            raise
        return _complain(f"{type(error).__name__}: {error} (NAPARI_UNET3D_DEBUG=1 shows where)", 1)
    return 0


def _complain(what: object, code: int) -> int:
    _err.print("[bold red]error:[/bold red]", end=" ")
    _err.print(str(what), markup=False)
    return code


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    """Segment 3D stacks from a few painted slices with a 3D U-Net.

    Without a command, napari opens with the plugin docked. A first session without it:

        napari-unet3d train stack.tif painted.tif -o model.unet3d --seconds 120

        napari-unet3d predict model.unet3d stack.tif -o segmented.tif

    In *painted.tif*, of the stack's shape, 0 is unlabelled (counts for nothing), 1 is
    background and 2… are your classes. In *segmented.tif*, 0 is background and the classes
    keep their numbers.
    """
    if context.invoked_subcommand is None:
        context.obj()


@app.command()
def train(
    image: Annotated[Path, typer.Argument(help="TIFF, OME-TIFF, ImageJ TIFF or OME-Zarr.")],
    annotation: Annotated[
        Path, typer.Argument(help="Integers: 0 unlabelled, 1 background, 2… classes.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model, *.unet3d.")],
    seconds: Annotated[
        float | None, typer.Option(help="Wall-clock time of the training. Default: 60.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Iterations, in place of --seconds: repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Device = "auto",
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Fine-tune this model.", metavar="MODEL")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on exactly where this model stopped, up to the whole budget given here.",
            metavar="MODEL",
        ),
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="Slices to measure on, never trained on: z=12,30 (also y=, x=, t=)."),
    ] = None,
    preset: Annotated[Preset, typer.Option(help="fast, balanced or paper.")] = "balanced",
    names: Annotated[
        str | None, typer.Option(help="Class names, as in 2=nucleus,3=membrane.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, as in learning_rate=0.001."),
    ] = None,
    lean: Annotated[
        bool, typer.Option("--lean", help="A file a quarter of the size, which cannot be resumed.")
    ] = False,
) -> None:
    """Train a model on the painted slices of a stack. Ctrl-C stops early and keeps the model."""
    if seconds is not None and iterations is not None:
        raise BadInputError("give --seconds or --iterations, not both")
    if start_from is not None and resume is not None:
        raise BadInputError("give --from (fine-tune) or --resume (go on), not both")
    config = _training_config(
        settings or [],
        preset=preset,
        seconds=(seconds or (60.0 if seconds is None else seconds)) if not iterations else None,
        iterations=iterations,
        seed=seed,
        device=device,
    )
    from napari_unet3d.data.annotation import SparseAnnotation, parse_slices
    from napari_unet3d.data.files import read_labels, read_volume
    from napari_unet3d.model.bundle import ModelBundle, check_destination
    from napari_unet3d.training.trainer import Trainer

    check_destination(output)
    volume = read_volume(image)
    labels = read_labels(annotation).data
    held_out = parse_slices(" ".join(hold_out or []))
    sparse = SparseAnnotation.from_labels(labels, held_out=held_out)
    sparse = SparseAnnotation(labels, _named(sparse.classes, names), frozenset(held_out))
    model = start_from or resume
    trainer = Trainer(
        volume,
        sparse,
        config,
        start_from=ModelBundle.load(model) if model else None,
        resume=resume is not None,
    )
    bundle = _train(trainer)
    (bundle.without_state() if lean else bundle).save(output)
    print(f"Model: {output} ({bundle.record.iterations} iterations)")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model, *.unet3d.")],
    image: Annotated[Path, typer.Argument(help="TIFF or OME-Zarr; may exceed the memory.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="*.tif or *.ome.zarr.")],
    probabilities: Annotated[
        Path | None, typer.Option(help="Also write a probability image per class here.")
    ] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="Also write an uncertainty image (0…1) here.")
    ] = None,
    times: Annotated[
        str | None, typer.Option(help="Time points of a series, as in 0,3. Default: all.")
    ] = None,
    device: Device = "auto",
    memory: Annotated[
        float | None, typer.Option(help="GiB that may be used. Default: from what is free.")
    ] = None,
) -> None:
    """Segment a whole stack with a model. 0 is background, classes keep their numbers."""
    from napari_unet3d.data.files import read_volume
    from napari_unet3d.model.bundle import ModelBundle

    config = _validated(
        _prediction_config, device=device, memory=int(memory * 2**30) if memory else None
    )
    bundle = ModelBundle.load(model)
    volume = read_volume(image)
    chosen = [_number(part) for part in times.split(",")] if times else None
    written = _predict_to_files(bundle, volume, config, chosen, output, probabilities, uncertainty)
    for path in written:
        print(f"Written: {path}")


@app.command()
def evaluate(
    prediction: Annotated[Path, typer.Argument(help="Integers, 0 background.")],
    truth: Annotated[Path, typer.Argument(help="Integers, same classes, 0 background.")],
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Slices to leave out, as those trained on: z=3,10,20."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a segmentation with a dense truth: IoU and Dice of each class."""
    from napari_unet3d.data.annotation import parse_slices
    from napari_unet3d.data.files import read_labels
    from napari_unet3d.prediction.scores import mean, show

    slices = parse_slices(" ".join(skip or []))
    found = compare(read_labels(prediction).data, read_labels(truth).data, slices)
    iou, dice = mean([s.iou for s in found]), mean([s.dice for s in found])
    if as_json:
        classes = {s.value: {"iou": s.iou, "dice": s.dice, "voxels": s.voxels} for s in found}
        print(json.dumps({"classes": classes, "mean_iou": iou, "mean_dice": dice}))
        return
    print(f"{'class':>6} {'IoU':>6} {'Dice':>6} {'voxels':>12}")
    for s in found:
        print(f"{s.value:>6} {show(s.iou):>6} {show(s.dice):>6} {s.voxels:>12}")
    print(f"{'mean':>6} {show(iou):>6} {show(dice):>6}")


@app.command()
def info(
    path: Annotated[Path | None, typer.Argument(help="A model or an image; or nothing.")] = None,
) -> None:
    """What is in a model or an image; without a path, what this machine offers."""
    if path is None:
        _describe_machine()
    elif path.suffix == ".unet3d":
        from napari_unet3d.model.bundle import ModelBundle

        bundle = ModelBundle.load(path)
        print(bundle.model_dump_json(indent=2, exclude={"weights", "state", "intensity"}))
    else:
        from napari_unet3d.data.files import read_volume

        volume = read_volume(path)
        size = " × ".join(f"{v:g}" for v in volume.voxel_size)
        print(f"{path}: {volume.axes} {tuple(volume.data.shape)} {volume.data.dtype}")
        print(f"voxel (z × y × x): {size} {volume.unit}")


@app.command()
def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Where the results go.")] = Path(
        "napari-unet3d-demo"
    ),
    seconds: Annotated[float, typer.Option(help="Wall-clock time of the training.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Device = "auto",
    window: Annotated[bool, typer.Option(help="Open napari when there is a screen.")] = True,
) -> None:
    """The whole path on a built-in stack: annotated slices, training, dense segmentation."""
    config = _training_config([], seconds=seconds, seed=seed, device=device)
    from napari_unet3d.config import PredictionConfig
    from napari_unet3d.data.annotation import SparseAnnotation
    from napari_unet3d.data.files import create_output
    from napari_unet3d.data.samples import tubules
    from napari_unet3d.prediction.scores import mean, show
    from napari_unet3d.training.trainer import Trainer

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"{folder} cannot be made ({error.strerror}): give another -o"
        ) from error
    sample = tubules()
    volume = sample.image
    slices = (*sample.training_slices, *sample.held_out_slices)
    labels = sample.annotate(slices)
    print(f"Sample: {volume.name}, {volume.shape} voxels; painted: {', '.join(map(str, slices))}")
    annotation = SparseAnnotation(labels, sample.classes, frozenset(sample.held_out_slices))
    bundle = _train(Trainer(volume, annotation, config))
    outputs = folder / "segmentation.ome.tif", folder / "model.unet3d", folder / "overlay.png"
    out = np.zeros(volume.shape, np.uint8)
    from napari_unet3d.prediction.predictor import predict as segment

    _follow(segment(bundle, volume, out, config=PredictionConfig(device=device)), "predicting")
    with create_output(
        outputs[0], out.shape, out.dtype, axes="ZYX", voxel_size=volume.voxel_size, unit=volume.unit
    ) as array:
        array[:] = out
    bundle.save(outputs[1])
    _save_overlay(
        volume, out, sample.truth, sample.classes, sample.held_out_slices[0].index, outputs[2]
    )
    unpainted = compare(out, sample.truth, slices)
    print(
        "On all slices that were not painted (the truth of this sample is known): IoU "
        + ", ".join(
            f"{c.name} {show(s.iou)}" for c, s in zip(sample.classes, unpainted, strict=True)
        )
        + f", mean {show(mean([s.iou for s in unpainted]))}"
    )
    for path in outputs:
        print(f"Written: {path}")
    if window and _has_screen():
        with contextlib.suppress(ImportError):
            context.obj(volume=volume, annotation=labels, prediction=out, classes=sample.classes)


def compare(predicted: Any, truth: Any, skip: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """Scores of every class that occurs, on the slices that are not skipped.

    Raises
    ------
    BadInputError
        The shapes differ, or the two have no class in common.
    """
    from napari_unet3d.prediction.scores import Overlap

    if tuple(predicted.shape) != tuple(truth.shape):
        raise BadInputError(
            f"the prediction has shape {tuple(predicted.shape)}, the truth "
            f"{tuple(truth.shape)}: give two of the same stack"
        )
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    keep = np.ones(truth.shape, bool)
    for ref in skip:
        axis = ref.axis + truth.ndim - 3
        if not 0 <= ref.index < truth.shape[axis]:
            raise BadInputError(f"slice {ref} is not in a stack of shape {truth.shape}")
        where: list[Any] = [slice(None)] * truth.ndim
        where[axis] = ref.index
        if truth.ndim == 4:
            where[0] = ref.time
        keep[tuple(where)] = False
    have, want = (set(np.unique(a)) - {0} for a in (predicted, truth))
    if have and want and not have & want:
        raise BadInputError(
            f"the prediction holds the classes {sorted(map(int, have))}, the truth "
            f"{sorted(map(int, want))}: number them alike (classes of a prediction keep the "
            "numbers of the annotation, 2…)"
        )
    overlap = Overlap(sorted(int(v) for v in have | want))
    overlap.add(predicted, truth, keep)
    return overlap.scores()


# --- following a generator ------------------------------------------------------------------


def _train(trainer: Any) -> Any:
    """Run a training to its end, or to Ctrl-C; the model."""
    from napari_unet3d.training.events import TrainingControl

    control = TrainingControl()
    with _interrupt(control.stop):
        bundle = _follow(trainer.run(control), "training")
    return bundle


def _follow(events: Generator[Any, None, T], task: str) -> T:
    """Iterate a generator of events, showing them; returns what it returns."""
    from napari_unet3d.prediction.predictor import Notice, PredictionProgress
    from napari_unet3d.training.events import HeldOutScores, TrainingProgress, TrainingStarted

    scores = None
    plain = not _err.is_terminal
    with Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        console=_err,
        disable=plain,
    ) as bar:
        line = bar.add_task(task, total=1.0, text="")
        shown = 0.0
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                result: T = end.value
                break
            if isinstance(event, TrainingStarted):
                _err.print(
                    f"3D U-Net, {event.parameters:,} parameters, patch {event.patch_shape}, "
                    f"{event.labelled_voxels:,} labelled voxels; {event.device}, {event.precision}"
                )
                for note in event.notes:
                    _err.print(note)
            elif isinstance(event, Notice):
                _err.print(event.text)
            elif isinstance(event, HeldOutScores):
                scores = event
            elif isinstance(event, TrainingProgress | PredictionProgress):
                fraction, text = _progress(event, scores)
                bar.update(line, completed=fraction, text=text)
                if plain and (fraction >= shown + 0.1 or fraction == 1):
                    shown = fraction
                    _err.print(f"{task} {fraction:4.0%}, {event.elapsed:.0f} s{text}")
    if scores is not None:
        _print_scores(scores)
    return result


def _progress(event: Any, scores: Any) -> tuple[float, str]:
    from napari_unet3d.prediction.scores import show
    from napari_unet3d.training.events import TrainingProgress

    if not isinstance(event, TrainingProgress):
        return event.done / event.total, f", tile {event.done} of {event.total}"
    text = f", iteration {event.iteration}, loss {event.loss:.3f}"
    if scores is not None:
        text += f", held-out IoU {show(scores.mean_iou)}"
    return event.fraction, text


def _print_scores(scores: Any) -> None:
    from napari_unet3d.prediction.scores import show

    near = (
        ""
        if scores.distance is None
        else (
            f"; the nearest trained slice is {scores.distance} away, and slices of one stack look "
            "alike: another stack may do worse"
        )
    )
    print(f"Held-out slices {', '.join(scores.slices)} (never trained on{near}):")
    for s in scores.classes:
        print(f"  class {s.value}: IoU {show(s.iou)}, Dice {show(s.dice)}")
    print(f"  mean:    IoU {show(scores.mean_iou)}, Dice {show(scores.mean_dice)}")


@contextlib.contextmanager
def _interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Within, the first Ctrl-C stops gently; a second one interrupts."""

    def handle(*_: object) -> None:
        _err.print("stopping; the model is kept (Ctrl-C again drops it)")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    old = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


# --- pieces ---------------------------------------------------------------------------------


def _training_config(settings: list[str], **given: Any) -> TrainingConfig:
    for item in settings:
        key, separator, value = item.partition("=")
        if not separator or key not in TrainingConfig.model_fields:
            raise BadInputError(
                f"--set {item}: write name=value with one of "
                f"{', '.join(sorted(TrainingConfig.model_fields))}"
            )
        try:
            given[key] = json.loads(value)
        except json.JSONDecodeError:
            given[key] = value
    return _validated(TrainingConfig, **given)


def _prediction_config(**given: Any) -> Any:
    from napari_unet3d.config import PredictionConfig

    return PredictionConfig(**given)


def _validated(make: Callable[..., T], **given: Any) -> T:
    try:
        return make(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        raise BadInputError(f"{name} = {first['input']!r}: {first['msg']}") from error


def _named(classes: tuple[ClassInfo, ...], names: str | None) -> tuple[ClassInfo, ...]:
    chosen: dict[int, str] = {}
    for part in filter(None, (names or "").split(",")):
        value, _, name = part.partition("=")
        chosen[_number(value)] = name.strip()
    unknown = sorted(set(chosen) - {c.value for c in classes})
    if unknown:
        raise BadInputError(
            f"--names {names}: class {unknown[0]} is not painted; painted are "
            f"{', '.join(str(c.value) for c in classes)}"
        )
    return tuple(
        _validated(default_class, value=c.value, name=chosen.get(c.value)) for c in classes
    )


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadInputError(f"{text!r} is not a whole number") from None


def _predict_to_files(
    bundle: Any,
    volume: Any,
    config: Any,
    times: list[int] | None,
    output: Path,
    probabilities: Path | None,
    uncertainty: Path | None,
) -> list[Path]:
    from napari_unet3d.data.files import create_output
    from napari_unet3d.prediction.predictor import predict as segment

    volume.check()
    axes = "TZYX" if "T" in volume.axes else "ZYX"
    shape = ((volume.n_times,) if "T" in volume.axes else ()) + volume.shape
    wanted = [
        (output, shape, np.uint8, axes),
        (probabilities, (bundle.network.n_classes, *shape), np.float32, "C" + axes),
        (uncertainty, shape, np.float32, axes),
    ]
    with ExitStack() as stack:
        arrays = [
            stack.enter_context(
                create_output(
                    path, s, np.dtype(d), axes=a, voxel_size=volume.voxel_size, unit=volume.unit
                )
            )
            if path
            else None
            for path, s, d, a in wanted
        ]
        events = segment(
            bundle,
            volume,
            arrays[0],
            probabilities=arrays[1],
            uncertainty=arrays[2],
            times=times,
            config=config,
        )
        _follow(events, "predicting")
    return [path for path, *_ in wanted if path]


def _describe_machine() -> None:
    import torch

    from napari_unet3d.model import device as devices

    device = devices.pick_device()
    print(f"torch {torch.__version__}; device: {devices.describe(device)}")
    print(f"precision: {devices.pick_precision(device)}")
    print(f"free memory: {devices.free_memory(device) / 2**30:.1f} GiB")
    if (why := devices.unused_gpu()) is not None:
        print(why)


def _has_screen() -> bool:
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def _save_overlay(
    volume: Any, out: Any, truth: Any, classes: tuple[ClassInfo, ...], index: int, path: Path
) -> None:
    """One slice, side by side: image, segmentation, truth."""
    from skimage.io import imsave

    plane = np.asarray(volume.data[index]).astype(float)
    low, high = np.percentile(plane, (0.5, 99.5))
    gray = np.clip((plane - low) / max(high - low, 1e-9), 0, 1)[..., None].repeat(3, -1)
    panels = [gray]
    for labels in (out[index], truth[index]):
        panel = gray.copy()
        for c in classes:
            color = np.array([int(c.color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
            panel[labels == c.value] = 0.5 * panel[labels == c.value] + 0.5 * color
        panels.append(panel)
    picture = np.concatenate(panels, 1).repeat(3, 0).repeat(3, 1)
    imsave(path, (picture * 255).astype(np.uint8), check_contrast=False)
