"""Synthetic volumes with truth, made wholly on one device: what `pretrain.py` learns from.

    python benchmarks/synthetic.py --picture volumes.png

`synthetic_scenes.py` makes the geometry. Here, an image model turns crops of it into gray values:
contrast of either sign, texture, uneven light, blur, noise, few gray levels. The same scene is seen
many times with other gray values.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from synthetic_scenes import (
    PARTS,
    TABLE,
    Grid,
    Scene,
    log_uniform,
    make_scene,
    smooth,
    standardized,
)
from torch import Tensor

MARGIN = 4
"""Voxels on each side that are cut off after the blur, which wraps around."""


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
    mean = ground + sign * each(0.15, 1)
    mean[:, 0] = ground[:, 0]
    signal = of_part(mean, part)
    between = each(0, 0.4) * (each(0, 1) < 0.5)
    own = torch.randn((n, TABLE), device=device)
    own = own.gather(1, crops.instance.flatten(1)).view_as(signal)
    signal = signal + of_part(between, part) * own * (part > 0)
    for low, high, amplitude in ((0.6, 1.8, 0.25), (1.8, 6.0, 0.2)):
        sigma = dice.log_uniform(low, high).view(n, 1).expand(n, 3).clone()
        sigma[:, 0] /= crops.spacing
        texture = standardized(smooth(torch.randn(signal.shape, device=device), sigma))
        strength = each(0, amplitude) * (each(0, 1) < 0.25)
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
    camera = dice.log_uniform(0.003, 0.03) * dice.log_uniform(1, 5) ** dice.chance(0.5)
    gray = gray + camera * torch.randn(gray.shape, device=device)
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
            shape = (8, 128, 128) if options.thick else (16, 128, 128)
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
