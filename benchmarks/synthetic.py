"""Synthetic volumes with truth, made wholly on one device: what `pretrain.py` learns from.

    python benchmarks/synthetic.py --picture volumes.png

A *scene* is geometry: warped Voronoi cells with walls, nuclei, branching tubes, sheets, layered
tissue, organelles, and mixtures. The *image model* turns crops of scenes into gray values: contrast
of either sign, texture, uneven light, blur, noise, few gray levels. The same scene is seen many
times with other gray values. Lengths are in units of the finest voxel; `spacing` is the distance of
two slices in that unit. No stack of anybody is used.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

PARTS = 12
"""Parts of a scene at most; part 0 is what nothing else covers."""
TABLE = 1 << 14
"""Entries of a table of random numbers, from which each Voronoi cell takes its own."""
MARGIN = 4
"""Voxels on each side that are cut off after the blur, which wraps around."""


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
    fields: list[Tensor] = field(default_factory=list)


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


# --- crops ------------------------------------------------------------------------------------


@dataclass
class Crops:
    """Parts of scenes, (N, Z, Y, X) each; `spacing` and `count` have a number for each crop."""

    spacing: Tensor
    part: Tensor
    instance: Tensor
    distance: Tensor
    count: list[int]


def crop_scenes(scenes: list[Scene], shape: tuple[int, int, int], turn: bool) -> Crops:
    """Random crops, mirrored and turned at random; with `turn`, any axis may become z."""
    found: list[list[Tensor]] = [[], [], []]
    spacing = []
    for scene in scenes:
        order = [0, 1, 2]
        if turn and scene.spacing < 1.2:
            random.shuffle(order)
        elif random.random() < 0.5:
            order = [0, 2, 1]
        flips = [a for a in range(3) if random.random() < 0.5]
        full = [scene.part.shape[a] for a in order]
        start = [random.randint(0, n - s) for n, s in zip(full, shape, strict=True)]
        box = tuple(slice(a, a + s) for a, s in zip(start, shape, strict=True))
        for maps, values in zip(found, (scene.part, scene.instance, scene.distance), strict=True):
            maps.append(values.permute(order)[box].flip(flips))
        spacing.append(scene.spacing)
    part, instance, distance = (torch.stack(maps) for maps in found)
    return Crops(
        torch.tensor(spacing, device=part.device),
        part.long(),
        instance.long(),
        distance.float(),
        [s.count for s in scenes],
    )


# --- image model ------------------------------------------------------------------------------


class Dice:
    """Random numbers for each crop of a batch, shaped for broadcasting."""

    def __init__(self, n: int, device: torch.device) -> None:
        self.shape, self.device = (n, 1, 1, 1), device

    def uniform(self, low: float, high: float) -> Tensor:
        """Between low and high."""
        return low + (high - low) * torch.rand(self.shape, device=self.device)

    def log_uniform(self, low: float, high: float) -> Tensor:
        """With a uniform logarithm."""
        return self.uniform(math.log(low), math.log(high)).exp()

    def chance(self, share: float) -> Tensor:
        """1 with a probability, or else 0."""
        return (torch.rand(self.shape, device=self.device) < share).float()


def of_part(values: Tensor, part: Tensor) -> Tensor:
    """(N, PARTS) numbers at each voxel's part."""
    return values.gather(1, part.flatten(1)).view_as(part)


@torch.no_grad()
def render(crops: Crops) -> tuple[Tensor, Tensor]:
    """Gray values of crops: noisy and clean, (N, Z, Y, X), both normalized."""
    part, distance = crops.part, crops.distance
    n, device = len(part), part.device
    dice = Dice(n, device)
    flat = (n, 1)

    def each(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((n, PARTS), device=device)

    # Materials: gray value, variation between objects, texture, brighter rims or middles.
    # A third of the volumes is dark where nothing is, as in fluorescence.
    dark = dice.chance(0.35).view(flat)
    ground = dice.uniform(0, 0.5).view(flat) * (1 - dark)
    sign = torch.where(each(0, 1) < dice.uniform(0, 0.5).view(flat) * (1 - dark), -1.0, 1.0)
    mean = ground + sign * each(0.1, 1)
    mean[:, 0] = ground[:, 0]
    signal = of_part(mean, part)
    between = each(0, 0.4) * (each(0, 1) < 0.5)
    own = torch.randn((n, TABLE), device=device)
    own = own.gather(1, crops.instance.flatten(1)).view_as(signal)
    signal = signal + of_part(between, part) * own * (part > 0)
    for low, high, amplitude in ((0.6, 1.8, 0.25), (1.8, 6.0, 0.25)):
        sigma = dice.log_uniform(low, high).view(n, 1).expand(n, 3).clone()
        sigma[:, 0] /= crops.spacing
        texture = standardized(smooth(torch.randn(signal.shape, device=device), sigma))
        strength = each(0, amplitude) * (each(0, 1) < 0.35)
        strength[:, :1] *= 1 - dark
        signal = signal + of_part(strength, part) * texture
    profile = of_part(each(-0.5, 0.5) * (each(0, 1) < 0.35), part)
    signal = signal + profile * torch.exp(-distance / dice.uniform(1, 6))
    # Light: uneven, weaker with depth; it multiplies what is above the darkest value.
    signal = signal - signal.amin((1, 2, 3), keepdim=True)
    depth = torch.linspace(0, 1, part.shape[1], device=device).view(1, -1, 1, 1)
    depth = torch.where(dice.chance(0.5) > 0, depth, 1 - depth)
    light = torch.exp(-depth * dice.uniform(0, 1.8) * dice.chance(0.4))
    sides = torch.tensor(part.shape[1:], device=device) / 4
    shade = standardized(smooth(torch.randn(signal.shape, device=device), sides.expand(n, 3)))
    light = light * torch.exp(shade * dice.uniform(0, 0.4) * dice.chance(0.5))
    uneven = torch.randn((n, part.shape[1], 1, 1), device=device)
    light = light * torch.exp(uneven * dice.uniform(0, 0.15) * dice.chance(0.2))
    # Blur, more along z; thick sections are not blurred along z.
    across = dice.uniform(0, 1.6) * dice.chance(0.85)
    along = across * dice.uniform(1, 3) / crops.spacing.view(dice.shape)
    along = torch.where(dice.chance(0.3) > 0, torch.zeros_like(along), along)
    sigma = torch.cat([along, across, across], 1).view(n, 3)
    clean = smooth(signal * light, sigma)
    # Noise: of photons, of the camera, correlated, of lines.
    clean = clean - clean.amin((1, 2, 3), keepdim=True)
    clean = clean / clean.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    photons = dice.log_uniform(6, 600)
    gray = clean + dice.uniform(0, 0.2)
    shot = torch.poisson(gray * photons) / photons
    gray = torch.where(dice.chance(0.45) > 0, shot, gray)
    gray = gray + dice.log_uniform(0.003, 0.12) * torch.randn(gray.shape, device=device)
    grain = dice.uniform(0.5, 1.3).view(n, 1).expand(n, 3)
    grain = standardized(smooth(torch.randn(gray.shape, device=device), grain))
    gray = gray + dice.uniform(0, 0.08) * dice.chance(0.3) * grain
    lines = torch.randn((*gray.shape[:3], 1), device=device)
    gray = gray + dice.uniform(0, 0.06) * dice.chance(0.1) * lines
    # The camera: gamma, few gray levels, saturation, either sign.
    low, high = ends(gray, 0.001, 0.999)
    gray = ((gray - low) / (high - low)).clamp(0, 1.5)
    gray = gray ** torch.where(dice.chance(0.5) > 0, dice.log_uniform(0.5, 2), 1.0)
    limit = torch.where(dice.chance(0.2) > 0, dice.uniform(0.6, 1), 1.5)
    gray = torch.minimum(gray, limit)
    levels = dice.log_uniform(24, 255)
    gray = torch.where(dice.chance(0.4) > 0, (gray * levels).round() / levels, gray)
    turned = 1 - 2 * dice.chance(0.3)
    gray, clean = gray * turned, clean * turned
    cut = (
        slice(None),
        *(slice(MARGIN, -MARGIN) if s > 40 else slice(None) for s in gray.shape[1:]),
    )
    gray, clean = normalized(gray[cut]), standardized(clean[cut])
    # Numbers of a stack differ from those of a crop of it.
    gray = gray * dice.log_uniform(0.7, 1.4) + dice.uniform(-0.4, 0.4)
    return gray, clean


def ends(gray: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Percentiles of each crop, from every fifth voxel."""
    ordered = gray.flatten(1)[:, ::5].sort(1).values
    last = ordered.shape[1] - 1
    a, b = (ordered[:, round(last * q)].view(-1, 1, 1, 1) for q in (low, high))
    return a, torch.maximum(b, a + 1e-6)


def normalized(gray: Tensor) -> Tensor:
    """As `IntensityNormalization` does it: clip at percentiles, mean 0, standard deviation 1."""
    low, high = ends(gray, 0.001, 0.999)
    return standardized(torch.minimum(torch.maximum(gray, low), high))


def inner(crops: Crops) -> Crops:
    """The part of crops that `render` returns."""
    shape = crops.part.shape[1:]
    cut = (slice(None), *(slice(MARGIN, -MARGIN) if s > 40 else slice(None) for s in shape))
    return Crops(
        crops.spacing, crops.part[cut], crops.instance[cut], crops.distance[cut], crops.count
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, required=True, help="PNG to write")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--thick", action="store_true", help="thick slices")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    from PIL import Image

    rows = []
    for _ in range(options.rows):
        row = []
        for _ in range(options.columns):
            spacing = log_uniform(2.5, 12) if options.thick else random.choice([1.0, 1.0, 2.2])
            shape = (8, 128, 128) if options.thick else (32, 128, 128)
            scene = make_scene(Grid(shape, spacing, torch.device("cpu")))
            gray, _ = render(crops := crop_scenes([scene], shape, turn=False))
            middle = gray.shape[1] // 2
            image = ((gray[0, middle] + 2.5) / 5).clamp(0, 1)
            truth = inner(crops).part[0, middle] / max(1, scene.count - 1)
            row += [image, truth, torch.ones(len(image), 4)]
        rows.append(torch.cat([torch.cat(row, 1), torch.ones(4, sum(t.shape[1] for t in row))]))
    picture = (torch.cat(rows) * 255).byte().numpy()
    Image.fromarray(picture).save(options.picture)


if __name__ == "__main__":
    main()
