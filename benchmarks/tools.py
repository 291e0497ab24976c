"""The tools on the slice in view: how long each holds up the window, and the clicks they save.

Both parts need no GPU; the first one needs a display::

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/tools.py speed
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/tools.py speed --store zarr
    python benchmarks/tools.py clicks ../shared/data/fluo_nuclei_gonuclear_1135

`speed` works through the dock in a true window: from the click or the button to the end of
napari's refresh of the slice. The times are CPU times of the thread of the window, so that other
programs matter little. `clicks` simulates a user who clicks with
Grow, and chooses the best region with a drag and the wheel, until 9 of 10 objects of a slice have
an IoU above 0.8. Objects that Grow does not reach are painted, the easiest first (`clicks +
strokes`). `strokes` are those for the same result with the brush alone: straight ones, with the
brush that needs the fewest for each object; `outline` counts two actions an object, its outline
and a fill.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import own_folder
from scipy import ndimage

from napari_unet3d.data.editing.growing import TOLERANCE, TOLERANCE_STEP, Growth, grow
from napari_unet3d.data.slices import SliceRef

SIZE = 2048
GOOD_IOU = 0.8
"""As small nuclei need it: a border that is one voxel off costs 0.15."""
ENOUGH = 0.9
"""Share of the objects of a slice."""
MOST_CLICKS = 3
"""Clicks on one object, before the user takes the brush."""
WHEEL = range(-8, 7, 2)
"""Steps of the mouse wheel that the user tries."""
RADII = (4, 6, 8, 12, 18, 26, 40, 64)
"""Voxels that the user drags."""
BRUSHES = (2, 3, 4, 6, 8, 11, 16, 22, 32)
SLICES = 3
SMALLEST = 20
"""Voxels. Smaller objects are not counted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    part = parser.add_subparsers(dest="part", required=True)
    speed = part.add_parser("speed")
    speed.add_argument("--store", choices=("numpy", "zarr"), default="numpy")
    speed.add_argument("--size", type=int, default=SIZE)
    clicks = part.add_parser("clicks")
    clicks.add_argument("stacks", nargs="*", type=Path, help="folders; without: the sample")
    clicks.add_argument("--slices", type=int, default=SLICES, help="evenly spaced in the stack")
    options = parser.parse_args()
    own_folder.use()
    if options.part == "speed":
        measure_speed(options.size, options.store)
    else:
        print(
            "| stack | slices | objects | good with a plain click | with clicks, drags, wheel |"
            " clicks + strokes | strokes | outline + fill |"
        )
        print("|" + "---|" * 8)
        for stack in options.stacks or [None]:
            print(count_clicks(stack, options.slices), flush=True)


# --- speed ----------------------------------------------------------------------------------


def measure_speed(size: int, store: str) -> None:
    import napari
    import zarr
    from qtpy.QtWidgets import QApplication

    from napari_unet3d.config import ClassInfo
    from napari_unet3d.data.sparse_labels import SparseLabels
    from napari_unet3d.widgets.dock import SegmentationDock
    from napari_unet3d.widgets.viewer.belonging import bind
    from napari_unet3d.widgets.viewer.layers import prediction_layer, write_classes

    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=(size, size)).astype(np.float32), 12)
    truth = np.where(field > 0.5 * field.std(), 2, 0).astype(np.uint8)
    plane = (truth * 60 + rng.normal(100, 15, truth.shape)).clip(0, 255).astype(np.uint8)
    image: Any = np.broadcast_to(plane, (8, size, size)).copy()
    labels: Any = np.zeros(image.shape, np.uint8)
    if store == "zarr":
        stored = zarr.create_array(
            zarr.storage.MemoryStore(), shape=image.shape, dtype=image.dtype, chunks=(1, 512, 512)
        )
        stored[:] = image
        image, labels = stored, SparseLabels.create(labels.shape)
    viewer = napari.Viewer(show=True)
    dock = SegmentationDock(viewer)
    viewer.window.add_dock_widget(dock)
    app = QApplication.instance()

    def wait(until: Callable[[], bool] = lambda: False, seconds: float = 0.5) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            app.processEvents()

    source = viewer.add_image(image, name="cells", contrast_limits=(0, 255))
    annotation = viewer.add_labels(labels, name="annotation")
    write_classes(annotation, (ClassInfo(value=2, name="cells", color="#e69f00"),))
    dock.choice.setValue(source, annotation)
    dock._viewer.dims.set_point(0, 4)
    wait()
    predicted = np.broadcast_to(truth, image.shape)
    layer = prediction_layer(predicted, "prediction", dock.annotator.classes(), {})
    bind(layer, source)
    viewer.add_layer(layer)
    dock.annotator.choose_label(2)
    wait()
    tools = next(f for f in dock.features if type(f).__name__ == "Tools")
    pointing, ref = tools.pointing, SliceRef(0, 4)
    inside = tuple(map(int, np.unravel_index(field.argmax(), field.shape)))
    print(f"{store}, {size}²: CPU milliseconds of the event loop (median of 3), then of the undo")

    def timed(name: str, act: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> None:
        took, undone = [], []
        for _ in range(3):
            prepare()
            wait(seconds=0.3)
            started = time.thread_time()
            act()
            took.append(1000 * (time.thread_time() - started))
            started = time.thread_time()
            dock.annotator.undo()
            undone.append(1000 * (time.thread_time() - started))
        print(f"| {name} | {np.median(took):.0f} | {np.median(undone):.0f} |", flush=True)

    def press(tool: str, modifiers: frozenset[str] = frozenset()) -> Callable[[], None]:
        def act() -> None:
            pointing._pressed(ref, inside, modifiers)
            if tool == "grow":
                pointing._dragged(20.0)
                pointing._released()

        return act

    tools.toggle("grow")
    timed("grow: press, one step of the drag, release", press("grow"))
    tools.toggle("take")
    timed("take", press("take"))
    timed("reject", press("take", frozenset({"Control"})))
    tools.toggle("take")
    timed("accept slice", lambda: tools.do("accept"))
    tools.do("accept")
    wait(seconds=1)
    holes = np.nonzero((rng.random(truth.shape) < 0.005) & (truth > 0))
    z = np.full(len(holes[0]), 4)
    annotation.data_setitem((z, *holes), 1)
    wait(seconds=1)
    timed("fill holes", lambda: tools.do("fill"))
    timed("smooth", lambda: tools.do("smooth"))
    dock.annotator.jump(SliceRef(0, 6))
    wait(seconds=1)
    timed("copy neighbor", lambda: tools.do("copy"))
    tools.do("copy")
    dock.annotator.jump(SliceRef(0, 5))
    wait(seconds=1)

    longest, started, wall = 0.0, time.thread_time(), time.perf_counter()
    tools.do("interpolate")
    held = 1000 * (time.thread_time() - started)
    while "proposed" not in dock.run_bar.remark.text():
        tick = time.thread_time()
        app.processEvents()
        longest = max(longest, 1000 * (time.thread_time() - tick))
        time.sleep(0.002)
    total = 1000 * (time.perf_counter() - wall)
    print(f"| interpolate: start {held:.0f}, longest step {longest:.0f}, 1 slice in {total:.0f} |")
    timed("accept proposal", lambda: tools.do("accept"))
    viewer.close()


# --- clicks ---------------------------------------------------------------------------------


def count_clicks(folder: Path | None, n_slices: int) -> str:
    image, labels, instances, spacing = _stack(folder)
    positions = np.linspace(0, len(image) - 1, 2 * n_slices + 1).round().astype(int)[1::2]
    rng = np.random.default_rng(0)
    n_objects = n_plain = n_reached = n_clicks = n_rest = n_strokes = 0
    for z in positions:
        objects = list(_objects(labels[z], None if instances is None else instances[z]))
        results = [_click(image[z].astype(np.float32), mask, spacing, rng) for mask in objects]
        strokes = [_strokes(mask) for mask in objects]
        enough = round(ENOUGH * len(objects))
        reached = [clicks for _, clicks, iou in results if iou > GOOD_IOU]
        rest = [n for n, (_, _, iou) in zip(strokes, results, strict=True) if iou <= GOOD_IOU]
        n_objects += len(objects)
        n_plain += sum(plain > GOOD_IOU for plain, _, _ in results)
        n_reached += len(reached)
        n_clicks += sum(sorted(reached)[:enough])
        n_rest += sum(sorted(rest)[: max(0, enough - len(reached))])
        n_strokes += sum(sorted(strokes)[:enough])
    name = "built-in nuclei" if folder is None else folder.name
    return (
        f"| {name} | {len(positions)} | {n_objects} | {n_plain / n_objects:.0%} |"
        f" {n_reached / n_objects:.0%} | {n_clicks} + {n_rest} | {n_strokes} |"
        f" {2 * round(ENOUGH * n_objects)} |"
    )


def _click(
    plane: np.ndarray, mask: np.ndarray, spacing: tuple[float, float], rng: np.random.Generator
) -> tuple[float, int, float]:
    """Click on one object; return the IoU of a plain click, the clicks, and the IoU reached."""
    painted = np.zeros(mask.shape, bool)
    plain = reached = 0.0
    for click in range(1, MOST_CLICKS + 1):
        seed = _deep_point(mask & ~painted, rng)
        growth = grow(plane, seed, spacing)
        if click == 1:
            plain = _iou(_full(growth, TOLERANCE, None, mask.shape), mask)
        best = max(
            (painted | region for region in _choices(plane, growth, seed, spacing, mask.shape)),
            key=lambda region: _iou(region, mask),
        )
        if _iou(best, mask) <= reached + 0.01:
            return plain, click - 1, reached  # a click that helps nothing is undone
        painted, reached = best, _iou(best, mask)
        if reached > GOOD_IOU:
            return plain, click, reached
    return plain, MOST_CLICKS, reached


def _choices(
    plane: np.ndarray,
    growth: Growth,
    seed: tuple[int, int],
    spacing: tuple[float, float],
    shape: tuple[int, ...],
) -> Iterator[np.ndarray]:
    for steps in WHEEL:
        yield _full(growth, TOLERANCE + steps * TOLERANCE_STEP, None, shape)
    for radius in RADII:
        wide = growth if radius <= growth.radius else grow(plane, seed, spacing, radius)
        for steps in WHEEL:
            yield _full(wide, TOLERANCE + steps * TOLERANCE_STEP, radius, shape)


def _full(
    growth: Growth, tolerance: float, radius: float | None, shape: tuple[int, ...]
) -> np.ndarray:
    region = growth.region(tolerance, radius)
    mask = np.zeros(shape, bool)
    mask[region.box] = region.mask
    return mask


def _strokes(mask: np.ndarray) -> int:
    """Straight strokes that paint an object well; its 0 where no brush does."""
    return min((n for n, iou in (_hatched(mask, d) for d in BRUSHES) if iou > GOOD_IOU), default=0)


def _hatched(mask: np.ndarray, diameter: int) -> tuple[int, float]:
    """Hatch an object with a brush; return the number of strokes and the IoU."""
    offsets = np.arange(diameter) - (diameter - 1) / 2
    brush = np.hypot(*np.meshgrid(offsets, offsets)) <= diameter / 2
    centers = ndimage.binary_erosion(mask, brush)
    rows = np.flatnonzero(centers.any(1))
    if not len(rows):
        return 0, 0.0
    n_rows = max(1, round(len(rows) / max(1, 0.8 * diameter)))
    rows = rows[np.linspace(0, len(rows) - 1, n_rows).round().astype(int)]
    path = np.zeros(mask.shape, bool)
    path[rows] = centers[rows]
    n_strokes = sum(ndimage.label(path[row])[1] for row in rows)
    return n_strokes, _iou(ndimage.binary_dilation(path, brush), mask)


def _deep_point(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """A point where a user would click: inside, at random where it is deep."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    deep = np.argwhere(depth >= 0.6 * depth.max())
    row, column = deep[rng.integers(len(deep))]
    return int(row), int(column)


def _objects(labels: np.ndarray, instances: np.ndarray | None) -> Iterator[np.ndarray]:
    numbers = ndimage.label(labels)[0] if instances is None else instances
    for number in np.unique(numbers)[1:]:
        parts, n_parts = ndimage.label(numbers == number)
        for part in range(1, n_parts + 1):
            mask = parts == part
            if mask.sum() >= SMALLEST:
                yield mask


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def _stack(
    folder: Path | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[float, float]]:
    """Image, labels, instances and the voxel size in the slice."""
    if folder is None:
        from napari_unet3d.data.samples import nuclei

        sample = nuclei()
        _, *size = sample.image.voxel_size
        return sample.image.data, sample.truth, None, (size[0], size[1])
    from napari_unet3d.data.io.reading import read_labels, read_volume

    volume = read_volume(folder / "image.tif")
    labels = np.asarray(read_labels(folder / "labels.tif").data)
    path = folder / "instances.tif"
    instances = np.asarray(read_labels(path).data) if path.exists() else None
    if instances is None and folder.name.startswith("em_"):
        labels = labels == 0  # the cells are what lies between the annotated boundaries
    _, *size = volume.voxel_size
    return np.asarray(volume.data), labels, instances, (size[0], size[1])


if __name__ == "__main__":
    main()
