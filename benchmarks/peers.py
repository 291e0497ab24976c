"""Methods that ours is compared with; MONAI's networks are in `networks`.

Each is called with a stack, an annotation, seconds, a seed and maybe a slice to look at, and
gives a `Result`. These take as long as they take, whatever the seconds. Packages that only a
benchmark needs (the extra `benchmark`) are imported where they are used.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from protocol import Floats, Labels, Look, NotRunError, Result, installed, need
from scipy.ndimage import distance_transform_edt, zoom

from napari_unet3d.config import Triple
from napari_unet3d.data.volume import Volume

FOREST_VOXELS = 60_000
FOREST_BLOCK = 500_000
WALKER_VALUES = 4_000_000
"""Voxels times classes of the largest random walk. Larger stacks are walked more coarsely."""
WALKER_CONTRAST = 1300.0
"""scikit-image's `beta`; its default, 130, was worse on all four stacks that were tried."""


def _values(labels: Labels) -> list[int]:
    """Label values of an annotation, 1 for background first."""
    return [int(v) for v in np.unique(labels) if v]


def _results(annotated: list[int]) -> NDArray[np.uint8]:
    """The same as values of a result, where background is 0."""
    return np.array([0 if v == 1 else v for v in annotated], np.uint8)


def _image(volume: Volume) -> Floats:
    """The first time point, (C, Z, Y, X) float32 with mean 0 and standard deviation 1."""
    image = volume.crop(0, (0, 0, 0), volume.shape).astype(np.float32)
    for channel in image:
        channel -= channel.mean()
        channel /= max(float(channel.std()), 1e-30)
    return image


# --- interpolation --------------------------------------------------------------------------


def interpolation(
    volume: Volume, labels: Labels, seconds: float, seed: int, look: Look | None = None
) -> Result:
    """Signed distances to each class, interpolated between the annotated slices.

    Each voxel gets the class with the largest distance to its border. Beyond the outermost
    annotated slice that slice is repeated. With several orientations their distances, each
    interpolated on its own, are averaged. What is missing on a slice is as far away as the
    middle of the thickest object is from its border: so an object ends halfway.
    """
    begin = time.perf_counter()
    annotated = _values(labels)
    distances: dict[tuple[int, int], Floats] = {}
    planes = {}
    for axis in range(3):
        complete = (labels > 0).all(axis=tuple(a for a in range(3) if a != axis))
        if complete.any():
            planes[axis] = np.flatnonzero(complete)
            painted = np.moveaxis(labels, axis, 0)[planes[axis]]
            spacing = [s for a, s in enumerate(volume.voxel_size) if a != axis]
            for value in annotated:
                area = [signed_distance(plane == value, spacing) for plane in painted]
                distances[axis, value] = np.stack(area)
    if not planes:
        raise NotRunError("no slice is annotated completely")
    objects = [d[np.isfinite(d)] for (_, value), d in distances.items() if value != 1]
    thickest = max((float(d.max()) for d in objects if d.size), default=1.0)
    found = np.zeros(labels.shape, np.uint8)
    best = np.full(labels.shape, -np.inf, np.float32)
    for value, result in zip(annotated, _results(annotated), strict=True):
        total = np.zeros(labels.shape, np.float32)
        for axis, positions in planes.items():
            near = np.nan_to_num(distances[axis, value], posinf=thickest, neginf=-thickest)
            np.moveaxis(total, axis, 0)[...] += between(near, positions, labels.shape[axis])
        closer = total > best
        found[closer], best[closer] = result, total[closer]
    return Result(found, (), None, 0.0, time.perf_counter() - begin)


def signed_distance(inside: NDArray[np.bool_], spacing: list[float]) -> Floats:
    """Distance to the border of an area, negative outside; infinite where there is no border."""
    if inside.all() or not inside.any():
        return np.full(inside.shape, np.inf if inside.any() else -np.inf, np.float32)
    within = distance_transform_edt(inside, spacing)
    without = distance_transform_edt(~inside, spacing)
    signed: Floats = (within - without).astype(np.float32)
    return signed


def between(planes: Floats, positions: NDArray[np.int_], n: int) -> Floats:
    """Planes at all positions 0…n-1 by linear interpolation of those at some."""
    at = np.interp(np.arange(n), positions, np.arange(len(positions)))
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(positions) - 1)
    share = (at - low).astype(np.float32)[:, None, None]
    mixed: Floats = planes[low] * (1 - share) + planes[high] * share
    return mixed


# --- random walker --------------------------------------------------------------------------


def walker(
    volume: Volume, labels: Labels, seconds: float, seed: int, look: Look | None = None
) -> Result:
    """Random walks from every voxel to the annotated ones, which is Biomedisa's idea.

    The solver is scikit-image's. A large stack is averaged over
    blocks first and the probabilities are interpolated, so that memory and time stay bounded.
    """
    from skimage.segmentation import random_walker

    begin = time.perf_counter()
    annotated = _values(labels)
    if len(annotated) < 2:
        raise NotRunError("no solution: only one class is annotated")
    spacing = np.array(volume.voxel_size, float)
    factors = coarsening(labels.shape, volume.voxel_size, WALKER_VALUES // len(annotated))
    image = np.stack([_block_mean(channel, factors) for channel in _image(volume)])
    seeds = _block_votes(labels, annotated, factors)
    multigrid = installed("pyamg")
    probabilities = random_walker(
        np.moveaxis(image, 0, -1),
        seeds,
        beta=WALKER_CONTRAST,
        mode="cg_mg" if multigrid else "cg_j",
        prob_tol=0.1,  # clipped below
        return_full_prob=True,
        spacing=tuple(spacing * factors / (spacing * factors).min()),
        channel_axis=-1,
    )
    if probabilities.shape[0] != len(annotated) or not np.isfinite(probabilities).all():
        raise NotRunError("no solution: scikit-image's solver found none")
    probabilities = probabilities.clip(0, 1)
    probabilities /= probabilities.sum(0)  # the solver's tolerance lets it be 1 ± 0.01
    kept = tuple(slice(n) for n in labels.shape)
    full = np.empty((len(annotated), *labels.shape), np.float16)
    for out, coarse in zip(full, probabilities, strict=True):
        fine = zoom(coarse, factors, order=1, grid_mode=True, mode="nearest")
        out[...] = fine[kept]
    results = _results(annotated)
    spent = time.perf_counter() - begin
    details = {"coarsened": [int(f) for f in factors], "multigrid": multigrid}
    return Result(
        results[full.argmax(0)], tuple(map(int, results)), full, 0.0, spent, details=details
    )


def coarsening(shape: Triple, voxel_size: tuple[float, float, float], most: int) -> Triple:
    """Block (z, y, x) that brings a stack below `most` voxels, the finest axes first."""
    factors = [1, 1, 1]
    while math.prod(-(-n // f) for n, f in zip(shape, factors, strict=True)) > most:
        finest = min(s * f for s, f in zip(voxel_size, factors, strict=True))
        factors = [
            f * 2 if s * f < 1.5 * finest else f for s, f in zip(voxel_size, factors, strict=True)
        ]
    return factors[0], factors[1], factors[2]


def _blocks(array: NDArray[Any], factors: Triple, **padding: Any) -> NDArray[Any]:
    """(z, fz, y, fy, x, fx): an array cut into blocks, padded to whole ones."""
    pad = [(0, -n % f) for n, f in zip(array.shape, factors, strict=True)]
    whole = np.pad(array, pad, **padding)
    parts = [m for n, f in zip(whole.shape, factors, strict=True) for m in (n // f, f)]
    return whole.reshape(parts)


def _block_mean(image: Floats, factors: Triple) -> Floats:
    mean: Floats = _blocks(image, factors, mode="edge").mean(axis=(1, 3, 5))
    return mean


def _block_votes(labels: Labels, annotated: list[int], factors: Triple) -> NDArray[np.int32]:
    """The most frequent annotated value of each block as 1, 2, …; 0 where there is none."""
    blocks = _blocks(labels, factors, mode="constant")
    votes = np.stack([(blocks == v).sum(axis=(1, 3, 5)) for v in annotated])
    return np.where(votes.any(0), votes.argmax(0) + 1, 0).astype(np.int32)


# --- random forest --------------------------------------------------------------------------


def forest(
    volume: Volume,
    labels: Labels,
    seconds: float,
    seed: int,
    look: Look | None = None,
    target: Volume | None = None,
) -> Result:
    """A random forest on the gray value, edges and texture around a voxel: ilastik's idea.

    Features of scikit-image at σ = 1…8 voxels in 3D, 100 trees, 60,000 labelled voxels. It is
    applied to the stack itself, or to `target`.
    """
    need("sklearn")
    from sklearn.ensemble import RandomForestClassifier

    threads = torch.get_num_threads()
    begin = time.perf_counter()
    features = _scikit_features(volume)
    rng = np.random.default_rng(seed)
    chosen = np.flatnonzero(labels)
    chosen = rng.choice(chosen, min(len(chosen), FOREST_VOXELS), replace=False)
    trees = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=threads, random_state=seed)
    trees.fit(features[chosen], labels.ravel()[chosen])
    trained = time.perf_counter()
    if target is not None:
        features = _scikit_features(target)
    results = _results([int(v) for v in trees.classes_])
    probabilities = np.empty((len(results), len(features)), np.float16)
    for start in range(0, len(features), FOREST_BLOCK):
        block = slice(start, start + FOREST_BLOCK)
        probabilities[:, block] = trees.predict_proba(features[block]).T
    probabilities = probabilities.reshape(-1, *(target or volume).shape)
    return Result(
        results[probabilities.argmax(0)],
        tuple(map(int, results)),
        probabilities,
        trained - begin,
        time.perf_counter() - trained,
    )


def _scikit_features(volume: Volume) -> NDArray[np.float32]:
    """(voxels, features)."""
    from skimage.feature import multiscale_basic_features

    threads = torch.get_num_threads()
    found = [
        multiscale_basic_features(channel, True, True, True, 1, 8, None, threads)
        for channel in _image(volume)
    ]
    features: NDArray[np.float32] = np.concatenate(found, axis=-1)
    return features.reshape(-1, features.shape[-1])


# --- nnU-Net --------------------------------------------------------------------------------


def nnunet(
    volume: Volume, labels: Labels, seconds: float, seed: int, look: Look | None = None
) -> Result:
    """nnU-Net's own trainer: not written yet, which the table says."""
    need("nnunetv2")
    raise NotRunError("no run of nnU-Net's trainer has been written yet")
