"""How well touching objects are separated, and what that costs on a large stack.

Needs no GPU. Quality is measured on the development stacks that have numbered objects: their true
classes are cut into objects, and the objects are compared with the true ones, so that this is the
upper bound for a perfect segmentation. `--noise` makes outlines rough, as those of a network::

    python benchmarks/objects.py quality
    python benchmarks/objects.py quality --noise 1
    python benchmarks/objects.py size --shape 512 1024 1024

`size` writes a zarr of touching balls, finds its objects in a process of its own, and reports CPU
time and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr
from scipy.ndimage import distance_transform_edt, gaussian_filter

from napari_unet3d.config import ObjectsConfig
from napari_unet3d.data.io.reading import read_labels, read_volume
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.objects.finding import find_objects, number_objects
from napari_unet3d.objects.instances import InstanceScores, compare_instances
from napari_unet3d.objects.scratch import Scratch

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CASES: dict[str, dict[str, object]] = {
    "fluo_nuclei_bbbc050_emb04": {},
    "fluo_cells_arabidopsis_ovule": {"method": "boundary", "boundary": 1},
    "fluo_nuclei_bbbc050_emb07_late": {},
    "fluo_nuclei_gonuclear_1135": {},
    "fluo_nuclei_stardist_tiny": {},
    "em_fibsem_medulla_neurons": {"method": "boundary", "boundary": 1, "classes": (0,)},
}
"""The defaults were chosen on the first two."""
SEPARATIONS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("quality", "size", "run"))
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--noise", type=float, default=0.0, help="roughness, shortest edges")
    parser.add_argument("--only", default="", help="part of the names of the stacks")
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 1024, 1024))
    parser.add_argument("--folder", type=Path, help="run: where the zarr is")
    parser.add_argument("--method", default="necks")
    options = parser.parse_args(arguments)
    if options.what == "quality":
        quality(options.data, options.noise, options.only)
    elif options.what == "size":
        size(tuple(options.shape))
    else:
        run(options.folder, options.method)


def quality(data: Path, noise: float, only: str) -> None:
    print("| stack | objects | found | AP 0.5 | AP 0.75 | split | merge | " + " | ".join(
        f"AP 0.5 / 0.75 at {s:g}" for s in SEPARATIONS) + " |")  # fmt: skip
    print("|" + "---|" * (7 + len(SEPARATIONS)))
    for name, settings in CASES.items():
        if only not in name or not (data / name / "instances.tif").exists():
            continue
        labels = read_labels(data / name / "labels.tif")
        image = read_volume(data / name / "image.tif")  # labels do not name their voxel size
        labels = replace(labels, voxel_size=image.voxel_size, unit=image.unit)
        true = read_labels(data / name / "instances.tif")
        truth = np.asarray(true.data)
        values = np.asarray(labels.data)
        labels = replace(labels, data=rough(values, labels.voxel_size, noise) if noise else values)
        config = ObjectsConfig(**settings)
        objects = drain(find_objects(labels, config))
        ours = compare_instances(objects.numbers, truth)
        row = [name, f"{ours.true}", f"{ours.predicted}", *figures(ours)]
        row += [f"{ours.split:.3f}", f"{ours.merge:.3f}"]
        for separation in SEPARATIONS:
            other = config.model_copy(update={"separation": separation})
            again = drain(number_objects(objects.separation, labels, other))
            row.append(" / ".join(figures(compare_instances(again.numbers, truth))))
        print("| " + " | ".join(row) + " |", flush=True)


def figures(scores: InstanceScores) -> list[str]:
    return [f"{f.average_precision:.3f}" for f in scores.found]


def rough(values: np.ndarray, voxel_size: Sequence[float], noise: float) -> np.ndarray:
    """Labels with outlines that are moved by smooth noise, std in shortest voxel edges."""
    rng = np.random.default_rng(0)
    edges = np.asarray(voxel_size) / min(voxel_size)
    best, result = np.full(values.shape, -np.inf), np.zeros_like(values)
    for value in np.unique(values):
        mask = values == value
        depth = distance_transform_edt(mask, edges) - distance_transform_edt(~mask, edges)
        bumps = gaussian_filter(rng.standard_normal(mask.shape), 1 / edges)
        depth = depth + noise * bumps / bumps.std()
        result[depth > best] = value
        best = np.maximum(best, depth)
    return result


def size(shape: tuple[int, int, int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        share = balls(folder / "labels.zarr", shape)
        print(f"{shape}, {share:.0%} foreground")
        for method in ("connected", "necks"):
            command = [sys.executable, __file__, "run", "--folder", place, "--method", method]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )


def balls(path: Path, shape: tuple[int, int, int]) -> float:
    """Write pairs of touching balls of 10 voxels, one pair in each box of 32 x 32 x 64."""
    z, y, x = np.indices((32, 32, 64))
    tile = np.zeros((32, 32, 64), np.uint8)
    for center in (22, 40):
        tile[(z - 16) ** 2 + (y - 16) ** 2 + (x - center) ** 2 <= 100] = 2
    array = zarr.create_array(
        store=str(path), shape=shape, dtype=np.uint8, chunks=(64, 256, 256), zarr_format=2
    )
    block = np.tile(tile, (2, shape[1] // 32 + 1, shape[2] // 64 + 1))[:, : shape[1], : shape[2]]
    for start in range(0, shape[0], 64):
        stop = min(start + 64, shape[0])
        array[start:stop] = block[: stop - start]
    return float((tile > 0).mean())


def run(folder: Path, method: str) -> None:
    labels = Volume(zarr.open_array(str(folder / "labels.zarr"), mode="r"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = folder / f"{method}.zarr"

    def make(shape: tuple[int, ...], dtype: np.dtype) -> zarr.Array:
        return zarr.create_array(
            store=str(out), shape=shape, dtype=dtype, chunks=(64, 256, 256), zarr_format=2
        )

    began, cpu = time.monotonic(), time.process_time()
    objects = drain(
        find_objects(labels, ObjectsConfig(method=method), make, scratch=Scratch(folder))
    )
    print(
        json.dumps(
            {
                "method": method,
                "objects": len(objects.table),
                "wall_s": round(time.monotonic() - began),
                "cpu_s": round(time.process_time() - cpu),
                "memory_before_MB": memory // 1024,
                "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
