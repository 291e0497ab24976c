"""Geometry of synthetic volumes: scenes of parts and objects, evaluated on any grid.

Warped Voronoi cells with walls, nuclei, branching tubes, sheets, layered tissue, organelles, and
mixtures of them. Lengths are in units of the finest voxel; `spacing` is the distance of two slices
in that unit. No stack of anybody is used.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

PARTS = 12
"""Parts of a scene at most; part 0 is what nothing else covers."""
TABLE = 1 << 14
"""Entries of a table of random numbers, from which each Voronoi cell takes its own."""


@dataclass(frozen=True)
class Grid:
    """Where a scene is evaluated."""

    shape: tuple[int, int, int]
    spacing: float
    device: torch.device

    @property
    def extent(self) -> tuple[float, float, float]:
        """Sides of the grid."""
        return self.shape[0] * self.spacing, float(self.shape[1]), float(self.shape[2])


@dataclass
class Scene:
    """Geometry of a volume.

    Attributes
    ----------
    part
        (Z, Y, X) uint8, which material a voxel is made of.
    instance
        (Z, Y, X) int16, number of its object, not unique.
    distance
        (Z, Y, X) float16, distance to the nearest border of a part or an object.
    """

    spacing: float
    part: Tensor
    instance: Tensor
    distance: Tensor
    count: int = 1


def log_uniform(low: float, high: float) -> float:
    """A random number whose logarithm is uniform."""
    return math.exp(random.uniform(math.log(low), math.log(high)))


# --- random fields ----------------------------------------------------------------------------


def smooth(maps: Tensor, sigma: Tensor) -> Tensor:
    """Blur (N, Z, Y, X) by Gaussians of (N, 3) standard deviations in voxels; it wraps around."""
    z, y, x = maps.shape[1:]
    device = maps.device
    total = torch.zeros((len(maps), z, y, x // 2 + 1), device=device)
    for axis, n in enumerate((z, y, x)):
        frequency = torch.fft.rfftfreq(n) if axis == 2 else torch.fft.fftfreq(n)
        shape = [-1 if a == axis else 1 for a in range(3)]
        square = (frequency.to(device) ** 2).view(1, *shape)
        total = total + sigma[:, axis].view(-1, 1, 1, 1) ** 2 * square
    spectrum = torch.fft.rfftn(maps, dim=(1, 2, 3)) * torch.exp(-2 * math.pi**2 * total)
    return torch.fft.irfftn(spectrum, s=(z, y, x), dim=(1, 2, 3))


def standardized(maps: Tensor) -> Tensor:
    """(N, Z, Y, X) with mean 0 and standard deviation 1 each."""
    flat = maps.flatten(1)
    mean, std = flat.mean(1), flat.std(1).clamp(min=1e-6)
    return (maps - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)


def noise(grid: Grid, sigma: float, count: int = 1) -> Tensor:
    """(count, Z, Y, X) smooth noise with mean 0 and standard deviation 1."""
    # A field that hardly varies within the volume would be rounding errors.
    limits = [n / 5 for n in grid.shape]
    sigmas = [min(s, n) for s, n in zip((sigma / grid.spacing, sigma, sigma), limits, strict=True)]
    white = torch.randn((count, *grid.shape), device=grid.device)
    return standardized(smooth(white, torch.tensor([sigmas] * count, device=grid.device)))


def signed_distance(level: Tensor, grid: Grid) -> Tensor:
    """Approximate distance to the surface where `level` is 0, negative where it is below."""
    parts = torch.gradient(level, spacing=[grid.spacing, 1.0, 1.0])
    slope = torch.stack(list(parts)).square().sum(0).sqrt()
    return level / torch.maximum(slope, 0.3 * slope.mean() + 1e-6)


# --- geometry ---------------------------------------------------------------------------------


def coordinates(grid: Grid, stretch: float, warp: float, scale: float) -> Tensor:
    """(3, Z, Y, X) positions, turned at random, stretched along an axis, and warped."""
    axes = [torch.arange(n, device=grid.device, dtype=torch.float32) for n in grid.shape]
    axes[0] = axes[0] * grid.spacing
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    if random.random() < 0.3 and grid.spacing > 2:
        # Sections that were not aligned.
        shift = torch.randn((3, grid.shape[0], 1, 1), device=grid.device) * random.uniform(0.2, 2)
        shift[0] = 0
        position = position + shift
    if warp:
        position = position + warp * scale * noise(grid, scale * random.uniform(0.5, 1.5), 3)
    if stretch == 1:
        return position
    turn, _ = torch.linalg.qr(torch.randn(3, 3))
    factors = torch.tensor([1 / stretch, stretch**0.5, stretch**0.5])
    matrix = (factors[:, None] * turn).to(grid.device)
    return (matrix @ position.flatten(1)).view_as(position)


@dataclass
class Cells:
    """Distances to the three nearest seeds, the number of the nearest, and its position."""

    first: Tensor
    second: Tensor
    third: Tensor
    number: Tensor
    seed: Tensor


def voronoi(position: Tensor, size: float, jitter: float, table: Tensor) -> Cells:
    """Cells around seeds near the points of a lattice, which is `size` apart."""
    position = position / size
    own = position.floor()
    far = torch.full_like(position[0], 9.0)
    first, second, third, seed = far, far, far, position
    number = torch.zeros_like(own[0], dtype=torch.int64)
    for code in range(27):
        step = torch.tensor([code // 9 - 1, code // 3 % 3 - 1, code % 3 - 1], device=own.device)
        cell = own + step.view(3, 1, 1, 1)
        k, j, i = cell.long()
        which = (k * 73_856_093 + j * 19_349_663 + i * 83_492_791) % TABLE
        place = cell + 0.5 + jitter * (table[:3, which] - 0.5)
        distance = (place - position).square().sum(0).sqrt()
        third = torch.minimum(third, torch.maximum(second, distance))
        second = torch.minimum(second, torch.maximum(first, distance))
        nearer = distance < first
        number = torch.where(nearer, which, number)
        seed = torch.where(nearer, place, seed)
        first = torch.minimum(first, distance)
    return Cells(first * size, second * size, third * size, number, seed * size)


class Painter:
    """Makes one scene, layer by layer."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        device, shape = grid.device, grid.shape
        self.part = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.instance = torch.zeros(shape, dtype=torch.int64, device=device)
        self.distance = torch.full(shape, 30.0, device=device)
        self.count = 1

    def cover(self, distance: Tensor, number: Tensor | None = None, only: int = -1) -> int:
        """A new part where a signed distance is negative; within part `only`, if any is named."""
        if self.count == PARTS:
            return self.count - 1
        inside = distance < 0
        if only >= 0:
            inside = inside & (self.part == only)
        numbers = torch.zeros_like(self.instance) if number is None else number
        self.part = torch.where(inside, self.count, self.part).to(torch.uint8)
        self.instance = torch.where(inside, numbers + 257 * self.count, self.instance)
        near = torch.minimum(self.distance, distance.abs())
        self.distance = torch.where(inside, -distance, near)
        self.count += 1
        return self.count - 1

    def cells(self) -> int:
        """Cells of two or three kinds, with walls; returns the part of the first kind."""
        grid = self.grid
        size = log_uniform(10, 70)
        position = coordinates(grid, random.choice([1, 1, 1.5, 2.5]), random.uniform(0, 0.4), size)
        table = torch.rand((6, TABLE), device=grid.device)
        cells = voronoi(position, size, random.uniform(0.5, 1), table)
        face = signed_distance(cells.second - cells.first, grid)
        wall = log_uniform(0.6, max(1.0, 0.2 * size)) * (
            1 + random.choice([0, 0.4]) * noise(grid, size / 2)[0]
        )
        inside = wall / 2 - face
        if random.random() < 0.3:  # lumens between cells: rounded corners
            corner = (cells.third - cells.first) / 1.7
            inside = torch.maximum(inside, random.uniform(0.05, 0.2) * size - corner)
        kind = table[4, cells.number]
        share = random.choice([1.0, 1.0, 0.7, 0.4])
        far = torch.full_like(inside, 9.0)
        first = self.cover(torch.where(kind <= share, inside, far), cells.number)
        if share < 1 and random.random() < 0.7:
            self.cover(torch.where(kind > share, inside, far), cells.number)
        if random.random() < 0.4:  # nuclei in the cells
            radius = size * random.uniform(0.15, 0.35) * (0.7 + 0.5 * table[5, cells.number])
            self.cover(cells.first - radius, cells.number, only=first)
        return first

    def tissue(self) -> int:
        """Nested layers of a random field, curved or flat."""
        grid = self.grid
        level = noise(grid, log_uniform(4, 30))[0]
        if random.random() < 0.5:
            z, y, x = (n * s for n, s in zip(grid.shape, (grid.spacing, 1, 1), strict=True))
            ramp = coordinates(grid, 1, 0, 1) / torch.tensor([z, y, x], device=grid.device).view(
                3, 1, 1, 1
            )
            toward = torch.randn((3, 1, 1, 1), device=grid.device)
            level = level + random.uniform(1, 6) * (toward * (ramp - 0.5)).sum(0)
        start, gap = random.uniform(-1.2, 0.6), random.uniform(0.3, 1)
        part = 0
        for i in range(random.choice([1, 1, 2, 3])):
            part = self.cover(signed_distance(start + i * gap - level, grid))
        return part

    def blobs(self, only: int = -1, largest: float = 50) -> int:
        """Nuclei, vesicles, organelles: separate, touching, in clusters or shells, with rims."""
        grid = self.grid
        size = log_uniform(5, largest)
        stretch = random.choice([1, 1, 1.3, 2, 3])
        position = coordinates(grid, stretch, random.uniform(0, 0.2), size)
        table = torch.rand((6, TABLE), device=grid.device)
        cells = voronoi(position, size, random.uniform(0.3, 1), table)
        spread = random.uniform(0, 0.5)
        ratio = random.uniform(0.28, 0.6)
        radius = size * ratio * (1 - spread + 2 * spread * table[3, cells.number]).clamp(min=0.2)
        gap = random.choice([0, 0.5, 1, 2])
        distance = torch.maximum(cells.first - radius, gap / 2 - (cells.second - cells.first) / 2)
        if random.random() < 0.5:
            distance = distance + size * random.uniform(0.02, 0.08) * noise(grid, size / 4)[0]
        distance = signed_distance(distance, grid)
        far = torch.full_like(distance, 9.0)
        there = table[4, cells.number] < random.choice([0.1, 0.3, 0.6, 1, 1])
        if random.random() < 0.35:  # a shell or a ball, as in an embryo
            extent = torch.tensor(grid.extent, device=grid.device).view(3, 1, 1, 1)
            middle = (0.2 + 0.6 * torch.rand((3, 1, 1, 1), device=grid.device)) * extent
            away = (cells.seed - middle).square().sum(0).sqrt() / min(grid.extent)
            there = there & ((away - random.uniform(0.1, 0.5)).abs() < random.uniform(0.05, 0.3))
        distance = torch.where(there, distance, far)
        share = random.choice([1, 1, 0.6])
        kind = table[5, cells.number]
        first = self.cover(torch.where(kind <= share, distance, far), cells.number, only)
        if share < 1:
            self.cover(torch.where(kind > share, distance, far), cells.number, only)
        if random.random() < 0.3 and size * ratio > 4:
            self.cover(distance + random.uniform(1, 0.5 * size * ratio), cells.number, first)
        return first

    def tubes(self, only: int = -1) -> int:
        """A branching network, or curves that do not branch; thick and thin, fading out."""
        grid = self.grid
        size = log_uniform(15, 80)
        radius = log_uniform(1, 0.12 * size + 1)
        varied = random.uniform(0, 0.6)
        if random.random() < 0.6:
            position = coordinates(
                grid, random.choice([1, 1.5, 2.5]), random.uniform(0.1, 0.5), size
            )
            table = torch.rand((6, TABLE), device=grid.device)
            cells = voronoi(position, size, 1.0, table)
            a, b = cells.second - cells.first, cells.third - cells.first
            away = (a.square() + b.square()).sqrt() / 1.7
            # Some stretches of the network are missing.
            absent = noise(grid, size / 2)[0] < random.choice([-9, -0.5, 0])
        else:
            a, b = noise(grid, size / 4, 2)
            away = (signed_distance(a, grid).square() + signed_distance(b, grid).square()).sqrt()
            absent = torch.zeros_like(a, dtype=torch.bool)
        width = radius * (1 + varied * noise(grid, size / 2)[0]).clamp(min=0.2)
        distance = torch.where(absent, torch.full_like(away, 9.0), away - width)
        part = self.cover(distance, None, only)
        if random.random() < 0.3 and radius > 2.5:  # a wall, with the lumen as another part
            self.cover(distance + random.uniform(0.8, 0.5 * radius), None, part)
        return part

    def sheets(self, only: int = -1) -> int:
        """Membranes without cells."""
        level = noise(self.grid, log_uniform(4, 30))[0] - random.uniform(-0.5, 0.5)
        distance = signed_distance(level, self.grid).abs() - log_uniform(0.6, 4)
        return self.cover(distance, None, only)

    def scene(self) -> Scene:
        """What was painted."""
        return Scene(
            self.grid.spacing,
            self.part,
            (self.instance % TABLE).short(),
            self.distance.clamp(0, 30).half(),
            self.count,
        )


@torch.no_grad()
def make_scene(grid: Grid) -> Scene:
    """A random scene."""
    painter = Painter(grid)
    base = random.choices(["none", "cells", "tissue"], [0.4, 0.4, 0.2])[0]
    inside = -1
    if base != "none":
        part = painter.cells() if base == "cells" else painter.tissue()
        inside = random.choice([-1, part])
    layers = random.choices([0, 1, 2, 3], [0.25 if base != "none" else 0, 0.5, 0.2, 0.1])[0]
    for _ in range(layers):
        layer = random.choices(["blobs", "tubes", "sheets", "small"], [0.4, 0.35, 0.08, 0.17])[0]
        if layer == "blobs":
            painter.blobs(inside)
        elif layer == "small":
            painter.blobs(random.choice([-1, inside]), largest=14)
        elif layer == "tubes":
            painter.tubes(random.choice([-1, inside]))
        else:
            painter.sheets(inside)
    return painter.scene()
