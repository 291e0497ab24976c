"""Simulated sample stacks with ground truth: cell nuclei and kidney tubules; no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import irfftn, rfftn  # scipy comes with scikit-image
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    fourier_gaussian,
    gaussian_filter,
    gaussian_filter1d,
    zoom,
)
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from napari_unet3d.config import BACKGROUND, PALETTE, ClassInfo, Triple
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]
Nearest = tuple[Floats, Floats, npt.NDArray[np.intp]]

WALL, LUMEN = 2, 3
CLASSES = (
    ClassInfo(value=WALL, name="tubule wall", color=PALETTE[0]),
    ClassInfo(value=LUMEN, name="lumen", color=PALETTE[1]),
)
NUCLEUS = 2
NUCLEUS_CLASSES = (ClassInfo(value=NUCLEUS, name="nucleus", color=PALETTE[0]),)
VOXEL_SIZE = (1.0, 0.5, 0.5)
_OUTLINE = 4
"""Voxels. Scribbles of background reach so far from a structure: a brush of 3 voxels, which leaves
the border free."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A stack with its dense truth, from which any sparse annotation can be taken.

    Parameters
    ----------
    image
        The stack, ZYX.
    truth
        Same shape, in the convention of a prediction: 0 background, 2… classes.
    classes
        The classes of `truth`.
    """

    image: Volume
    truth: Labels
    classes: tuple[ClassInfo, ...]

    @property
    def training_slices(self) -> tuple[SliceRef, ...]:
        """Slices to annotate in a demonstration: three xy, one xz and one yz."""
        return (*(self._slice(0, at) for at in (0.2, 0.5, 0.8)), self._slice(1), self._slice(2))

    @property
    def held_out_slices(self) -> tuple[SliceRef, ...]:
        """Two xy slices to measure on, none of them in `training_slices`."""
        return self._slice(0, 0.35), self._slice(0, 0.65)

    def _slice(self, axis: int, at: float = 0.5) -> SliceRef:
        return SliceRef(axis, round(at * (self.truth.shape[axis] - 1)))

    def annotate(self, refs: Sequence[SliceRef]) -> Labels:
        """Annotate the slices `refs` completely, as a careful user would.

        Returns
        -------
        numpy.ndarray
            Shape of `truth`, uint8: 0 unlabelled, 1 background, 2… classes.

        Raises
        ------
        BadInputError
            When a slice is not in the stack.
        """
        annotation = np.zeros_like(self.truth)
        for ref in refs:
            where = self._where(ref)
            annotation[where] = np.maximum(self.truth[where], BACKGROUND)
        return annotation

    def scribble(self, refs: Sequence[SliceRef]) -> Labels:
        """Paint the slices `refs` roughly, as a quick user would.

        Structures are filled but for their border, and outlined with background; a line of
        background runs between them.

        Returns
        -------
        numpy.ndarray
            As `annotate`; the borders and most of the background stay unlabelled.

        Raises
        ------
        BadInputError
            When a slice is not in the stack.
        """
        annotation = np.zeros_like(self.truth)
        for ref in refs:
            where = self._where(ref)
            depth = distance_transform_edt(self.truth[where] == 0)  # into the background
            middle = skeletonize(depth > 0)  # type: ignore[no-untyped-call]
            between = binary_dilation(middle)
            annotation[where][(depth > 1) & (between | (depth <= _OUTLINE))] = BACKGROUND
            for info in self.classes:
                inside = distance_transform_edt(self.truth[where] == info.value) > 1
                annotation[where][inside] = info.value
        return annotation

    def _where(self, ref: SliceRef) -> tuple[slice | int, ...]:
        last = self.truth.shape[ref.axis] - 1
        if ref.time != 0 or not 0 <= ref.index <= last:
            raise BadInputError(f"no slice {ref} in the sample; give an index from 0 to {last}")
        return (slice(None),) * ref.axis + (ref.index,)


def tubules(shape: Triple = (64, 160, 160), seed: int = 0) -> Sample:
    """Simulate a confocal stack of kidney tubules, with walls, lumens and what lies between.

    Capillaries, fibers and debris are background. The microscope adds blur (wider in z, growing
    with depth), attenuation with depth, uneven illumination, photon and read noise.

    Parameters
    ----------
    shape
        (z, y, x) in voxels of 1.0 × 0.5 × 0.5 µm, at least (8, 32, 32).
    seed
        0 or more; the same seed gives the same stack on the same machine.

    Returns
    -------
    Sample
        A uint16 image; truth 0 background, 2 tubule wall, 3 lumen.

    Raises
    ------
    BadInputError
        When `shape` is too small.
    """
    _check_shape(shape)
    rng = np.random.default_rng(seed)
    truth, dye = _tissue(rng, shape)
    image = Volume(_microscope(rng, dye), "ZYX", VOXEL_SIZE, "µm", "kidney tubules")
    return Sample(image, truth, CLASSES)


def nuclei(shape: Triple = (48, 160, 160), seed: int = 0) -> Sample:
    """Simulate a confocal stack of densely packed cell nuclei.

    Nuclei are ellipsoids with bumps, of different sizes and brightness, with chromatin, dark
    nucleoli and a hazy background; the microscope is that of `tubules`.

    Parameters
    ----------
    shape
        (z, y, x) in voxels of 1.0 × 0.5 × 0.5 µm, at least (8, 32, 32).
    seed
        0 or more; the same seed gives the same stack on the same machine.

    Returns
    -------
    Sample
        A uint16 image; truth 0 background, 2 nucleus.

    Raises
    ------
    BadInputError
        When `shape` is too small.
    """
    _check_shape(shape)
    rng = np.random.default_rng(seed)
    truth, dye = _cells(rng, shape)
    image = Volume(_microscope(rng, dye), "ZYX", VOXEL_SIZE, "µm", "cell nuclei")
    return Sample(image, truth, NUCLEUS_CLASSES)


def sparse_nuclei(shape: Triple = (32, 128, 128), seed: int = 0) -> Sample:
    """Simulate a bright confocal stack of cell nuclei that lie apart: an easy first stack.

    Parameters, result and errors are those of `nuclei`.
    """
    _check_shape(shape)
    rng = np.random.default_rng(seed)
    truth, dye = _cells(rng, shape, _LARGE_NUCLEUS, _APART)
    image = Volume(_microscope(rng, 3 * dye), "ZYX", VOXEL_SIZE, "µm", "sparse nuclei")
    return Sample(image, truth, NUCLEUS_CLASSES)


def _check_shape(shape: Triple) -> None:
    if len(shape) != 3 or shape[0] < 8 or min(shape[1:]) < 32:
        raise BadInputError(f"shape is {shape}; give (z, y, x) of at least (8, 32, 32)")


# ---- the tissue: lengths in µm ------------------------------------------------------------------

_MARGIN = 12.0  # tubes also wind outside the stack, so that some leave it
_STEP = 3.0  # distance of the beads that make up a tube
_GAP = 1.2  # wanted between one turn and the next
_NUCLEUS, _LARGE_NUCLEUS = 6.0, 8.0  # mean semi-axis of a nucleus
_PACKED, _APART = 1.55, 2.2  # semi-axes between the centers of two nuclei, at least
_BLUR = ((0.8, 0.26, 0.26), (1.3, 0.45, 0.45))  # of the microscope, at the top and deep down


def _unit(vectors: Doubles) -> Doubles:
    length: Doubles = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / (length + 1e-9)


def _wave(rng: np.random.Generator, n: int, sigma: float, low: float, high: float) -> Doubles:
    """Vary smoothly between `low` and `high` along `n` beads."""
    noise: Doubles = gaussian_filter1d(rng.normal(size=n), sigma)
    return np.asarray(np.interp(noise / noise.std(), [-1.5, 1.5], [low, high]))


def _wind(rng: np.random.Generator, box: Doubles) -> tuple[Doubles, Doubles]:
    """Wind a tubule and a capillary through `box`; their beads, in rows of z, y, x, radius."""
    width = box + 2 * _MARGIN
    n_wide, n_thin = round(width.prod() / 1000), round(width.prod() / 1300)
    radius = np.concatenate([_wave(rng, n_wide, 4, 6.7, 9.7), _wave(rng, n_thin, 4, 1.4, 2.2)])
    steps = _STEP * _unit(gaussian_filter1d(rng.normal(size=(len(radius), 3)), 6.0, axis=0))
    points = np.abs(steps.cumsum(axis=0) % (2 * width) - width) - _MARGIN  # folded at the borders
    for _ in range(150):  # turns push each other aside until they fit
        i, j = cKDTree(points).query_pairs(2 * radius.max() + _GAP, output_type="ndarray").T
        away = points[i] - points[j]
        distance = np.sqrt(np.einsum("ij,ij->i", away, away)) + 1e-6
        overlap = radius[i] + radius[j] + _GAP - distance
        # Neighbors along the tube may be close; its other turns may not.
        hit = (overlap > 0) & (np.abs(i - j) * _STEP > 2.5 * radius[i] + _STEP)
        i, j = i[hit], j[hit]
        push = away[hit] * (0.4 * overlap / distance)[hit, None]
        give = (radius[j] / (radius[i] + radius[j]))[:, None]  # thin tubes give way
        move = np.zeros_like(points)
        np.add.at(move, i, push * give)
        np.add.at(move, j, push * (give - 1))
        points = np.clip(points + move.clip(-1.5, 1.5), -_MARGIN, box + _MARGIN)
        # Keep the tubes smooth, and their beads a step apart.
        points[1:-1] += 0.3 * ((points[:-2] + points[2:]) / 2 - points[1:-1])
        edge = np.diff(points, axis=0)
        slack = 0.3 * (edge - _STEP * _unit(edge))
        points[:-1] += slack
        points[1:] -= slack
    beads = np.column_stack([points, radius])  # and twice as many make a smooth surface
    return zoom(beads[:n_wide], (2, 1), order=3), zoom(beads[n_wide:], (2, 1), order=3)


def _nearest(points: Doubles, radius: Doubles, reach: float, shape: Triple) -> Nearest:
    """Distance of each voxel to the nearest sphere and to the next, and which one is nearest.

    Distances are to the surface, negative inside, `reach` at most. Painting sphere by sphere is
    several times faster than a k-d tree that is asked for every voxel.
    """
    nearest, second = np.full((2, *shape), reach, np.float32)
    which = np.zeros(shape, np.intp)
    around = (radius + reach)[:, None]
    start = np.clip(np.ceil((points - around) / VOXEL_SIZE), 0, shape).astype(int)
    stop = np.clip(np.floor((points + around) / VOXEL_SIZE) + 1, 0, shape).astype(int)
    for n in np.flatnonzero((stop > start).all(axis=1)):
        box = tuple(slice(*ends) for ends in zip(start[n], stop[n], strict=True))
        offsets = zip(np.ogrid[box], VOXEL_SIZE, points[n], strict=True)
        z, y, x = (((grid * step - at) ** 2).astype(np.float32) for grid, step, at in offsets)
        away = np.sqrt(z + y + x) - np.float32(radius[n])
        closer = away < nearest[box]
        np.minimum(second[box], np.maximum(nearest[box], away), out=second[box])
        np.copyto(nearest[box], away, where=closer)
        np.copyto(which[box], n, where=closer)
    return nearest, second, which


def _nuclei(rng: np.random.Generator, points: Doubles, depth: Doubles) -> Doubles:
    """Centers of the cells' nuclei, in rings around the beads `points`, `depth` from them."""
    along = _unit(np.gradient(points, axis=0))
    side = _unit(np.cross(along, [0.36, 0.48, 0.8]))
    other = np.cross(along, side)
    turn = np.arange(8) * (np.pi / 4) + rng.uniform(0, 2 * np.pi, (len(points), 1))
    turn = (turn + rng.normal(0, 0.15, turn.shape))[..., None]
    ring = np.cos(turn) * side[:, None] + np.sin(turn) * other[:, None]
    centers = points[:, None] + depth[:, None, None] * ring
    return (centers + rng.normal(0, 0.6, centers.shape)).reshape(-1, 3)


def _noise(rng: np.random.Generator, shape: Triple, sigma: float) -> Floats:
    """Noise smoothed over `sigma` µm, of mean 0 and standard deviation 1."""
    white = rfftn(rng.standard_normal(shape, dtype=np.float32))
    smooth = fourier_gaussian(white, np.divide(sigma, VOXEL_SIZE), n=shape[-1])
    smooth[0, 0, 0] = 0  # the mean
    noise = irfftn(smooth, s=shape)
    return np.asarray(noise / noise.std())


def _tissue(rng: np.random.Generator, shape: Triple) -> tuple[Labels, Floats]:
    """Grow the tissue: truth, and the concentration of the dye."""
    size = np.array(shape) * VOXEL_SIZE
    box = np.maximum(size, 48.0)  # room for tubes to wind, also around a small stack
    wide, thin = _wind(rng, box)
    points, outer = wide[:, :3], wide[:, 3]
    if (size < box).any():  # a small stack, too, shall show wall, lumen and background
        across = np.argmin(np.abs(np.gradient(points[:, 2])))  # x is across the tubule here
        shift = size / 2 - points[across] + [0, 0, 0.8 * outer[across]]
        points += shift
        thin[:, :3] += shift

    def varied(low: float, high: float) -> Doubles:  # along the tubule
        return _wave(rng, len(wide), 60, low, high)

    inner = outer * varied(0.4, 0.68)  # a proximal tubule has a thick wall, a distal one a thin
    surface, _, bead = _nearest(points, outer, 2.5, shape)
    lumen = surface + (outer - inner).astype(np.float32)[bead] + 0.45 * _noise(rng, shape, 1.4)
    surface += 0.3 * _noise(rng, shape, 2.8)
    truth = np.where(surface < 0, WALL, 0).astype(np.uint8)
    truth[(lumen < 0) & (surface < -1.5)] = LUMEN

    # Between the tubules: a matrix with fibers, capillaries, debris.
    fibers = _line(_noise(rng, shape, 2.6), 0.16) * (_noise(rng, shape, 5.6) > 0.2)
    dye = 0.2 + 0.05 * _noise(rng, shape, 1.4) + 0.5 * fibers
    capillary, _, _ = _nearest(thin[:, :3], thin[:, 3], 1.5, shape)
    dye = np.where(capillary < 0, 0.35, dye) + 0.7 * _line(capillary, 0.5)
    debris = rng.uniform(0, size, (round(size.prod() / 4000), 3))
    speck, _, _ = _nearest(debris, rng.uniform(0, 0.8, len(debris)), 1.5, shape)
    dye += 1.8 * _line(speck.clip(0), 0.5)

    # The epithelium: cells that differ, with granules, dark nuclei and brighter membranes.
    nuclei = _nuclei(rng, points[::3], (0.4 * inner + 0.6 * outer)[::3])
    nucleus, border, cell = _nearest(nuclei, np.zeros(len(nuclei)), 6.0, shape)
    tone = varied(0.46, 0.85).astype(np.float32)[bead]
    tone *= rng.lognormal(0, 0.18, len(nuclei)).astype(np.float32)[cell]
    grain = 1 + 0.22 * _noise(rng, shape, 0.4) + 0.12 * _noise(rng, shape, 2.0)
    wall = tone * grain * (1 - 0.68 / (1 + np.exp((nucleus - 1.9) / 0.15)))
    wall += 0.3 * _line(border - nucleus, 0.4) + 0.5 * tone * _line(lumen, 0.6)
    dye = np.where(surface < 0, wall, dye) + 0.3 * _line(surface, 0.4)
    filtrate = varied(0.04, 0.26).astype(np.float32)[bead] * (1 + 0.3 * _noise(rng, shape, 2.8))
    return truth, np.where(truth == LUMEN, filtrate, dye).clip(0.02).astype(np.float32)


def _cells(
    rng: np.random.Generator,
    shape: Triple,
    radius: float = _NUCLEUS,
    spacing: float = _PACKED,
) -> tuple[Labels, Floats]:
    """Pack the nuclei: truth, and the concentration of the dye."""
    size = np.array(shape) * VOXEL_SIZE
    tries = rng.uniform(-radius, size + radius, (round(size.prod() / 40), 3))
    tries[0] = size / 2  # a small stack shows one, too
    centers = tries[:1]
    for point in tries[1:]:  # those that touch none before them
        if np.linalg.norm(centers - point, axis=1).min() > spacing * radius:
            centers = np.vstack([centers, point])
    bumps = 0.09 * _noise(rng, shape, 2.5)
    nearest, second = np.full((2, *shape), 2.0, np.float32)  # 1 on the surface of a nucleus
    tone = np.zeros(shape, np.float32)
    for center in centers:
        axes = radius * rng.uniform(0.7, 1.1, 3)
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] / axes[:, None]
        start = np.clip(np.ceil((center - 2 * radius) / VOXEL_SIZE), 0, shape).astype(int)
        stop = np.clip(np.floor((center + 2 * radius) / VOXEL_SIZE) + 1, 0, shape).astype(int)
        box = tuple(slice(*ends) for ends in zip(start, stop, strict=True))
        place = np.stack(np.broadcast_arrays(*np.ogrid[box]), -1) * VOXEL_SIZE - center
        away = np.linalg.norm(place @ turn.T, axis=-1).astype(np.float32)
        np.minimum(second[box], np.maximum(nearest[box], away), out=second[box])
        np.copyto(tone[box], rng.lognormal(-0.4, 0.3), where=away < nearest[box])
        np.minimum(nearest[box], away, out=nearest[box])
    inside = (nearest + bumps < 1) & (second - nearest > 0.12)  # a gap between neighbors
    truth = np.where(inside, NUCLEUS, 0).astype(np.uint8)
    chromatin = 1 + 0.25 * _noise(rng, shape, 0.6) + 0.15 * _noise(rng, shape, 2.0)
    nucleoli = 1 - 0.55 * (_noise(rng, shape, 1.1) > 1.9)
    haze = 0.12 + 0.05 * _noise(rng, shape, 4.0) + 0.05 * _line(nearest - 1, 0.3)
    return truth, np.where(inside, tone * chromatin * nucleoli, haze).clip(0.02).astype(np.float32)


def _line(distance: Floats, width: float) -> Floats:
    return np.asarray(np.exp(-((distance / width) ** 2)))


def _microscope(rng: np.random.Generator, dye: Floats) -> npt.NDArray[np.uint16]:
    """Image it with a confocal microscope: blur, attenuation, shading, noise."""
    z, y, x = np.ix_(*(np.linspace(0, 1, n, dtype=np.float32) for n in dye.shape))
    depth = z * np.float32(dye.shape[0] * VOXEL_SIZE[0])
    sharp, blurred = (gaussian_filter(dye, np.divide(sigma, VOXEL_SIZE)) for sigma in _BLUR)
    light = sharp + np.minimum(depth / 64, 1) * (blurred - sharp)
    light *= np.exp(-depth / 66)  # the mean free path
    light *= 1.1 - 0.6 * ((y - 0.4) ** 2 + (x - 0.55) ** 2)
    counts = 100 + 18 * rng.poisson(75 * light) + rng.normal(0, 15, dye.shape)
    return np.asarray(counts.clip(0, 4095), np.uint16)  # a 12-bit detector
