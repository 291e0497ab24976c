"""Pretrains small networks on synthetic volumes: features of voxels for any later task.

    python benchmarks/pretrain.py --seconds 240 --out features.pt --device cuda
    python benchmarks/pretrain.py --seconds 120 --out features.pt --device cpu --small

Two U-Nets without normalization, each a `UNetConfig` with 16 outputs, which are the features: one
for cubic voxels, one for thick slices. Each step imitates the use: a ridge regression is fitted in
closed form to the features of a few labelled slices, classifies the rest of the volume, and its
loss there is what the network learns from (as in R2-D2, Bertinetto et al. 2019, arXiv:1805.08136).
What the classes are is drawn anew for each volume. Borders, distances and the image without noise
are further targets. The file is written every 30 s; `pretrained.py` measures what it is worth.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from episodes import (
    TASKS,
    Episodes,
    episode_iou,
    episode_loss,
    few_filters,
    make_episodes,
    solve,
)
from synthetic import Crops, crop_scenes, inner, render
from synthetic_scenes import Grid, Scene, log_uniform, make_scene
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from napari_unet3d.networks import UNetConfig
from napari_unet3d.pixels.features import filter_bank

FEATURES = 16
PEAK_RATE = 2e-3
FORM = torch.channels_last_3d
SAVE_EVERY, LOG_EVERY = 30.0, 10.0  # seconds
GENERATING = 0.2
"""Share of the time in which new scenes are made; the others are seen again in other crops, with
other gray values."""


@dataclass(frozen=True)
class Variant:
    """A network, and the volumes that it learns from."""

    name: str
    config: UNetConfig
    scene: tuple[int, int, int]
    crop: tuple[int, int, int]
    spacing: tuple[float, float]
    turn: bool


def variants(small: bool) -> list[Variant]:
    """The networks for cubic voxels and for thick slices."""
    shared: dict[str, Any] = {
        "n_classes": FEATURES,
        "widths": (8, 16, 32) if small else (16, 32, 64, 128),
        "padding": "same",
        "normalization": "none",
        "widen_before_pool": False,
        "keep_up_channels": False,
    }
    n = 3 if small else 4
    cubic = UNetConfig(kernels=((3, 3, 3),) * n, strides=((2, 2, 2),) * (n - 1), **shared)
    flat = UNetConfig(
        kernels=((1, 3, 3),) + ((3, 3, 3),) * (n - 1),
        strides=((1, 2, 2),) * (n - 2) + ((2, 2, 2),),
        **shared,
    )
    if small:
        return [
            Variant("cubic", cubic, (40, 48, 48), (32, 40, 40), (1.0, 2.2), turn=True),
            Variant("thick", flat, (12, 80, 80), (8, 56, 56), (2.5, 12.0), turn=False),
        ]
    return [
        Variant("cubic", cubic, (96, 96, 96), (72, 72, 72), (1.0, 2.2), turn=True),
        Variant("thick", flat, (24, 160, 160), (16, 120, 120), (2.5, 12.0), turn=False),
    ]


# --- the network ------------------------------------------------------------------------------


class Learned(nn.Module):
    """A network whose kernels have a fixed size: standardized weights times a learned gain.

    It needs no normalization of maps then, and is stored as a plain network without any (Brock et
    al. 2021, arXiv:2101.08692).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.network = config.build()
        first = next(iter(self.network.encoder.parameters()))
        self.kinds: dict[str, str] = {}
        self.gains = nn.ParameterDict()
        for name, weight in self.network.named_parameters():
            if weight.ndim != 5 or name.startswith("head"):
                continue
            self.kinds[name] = "up" if name.startswith("ups") else "convolution"
            if weight is first:
                self.kinds[name] = "first"
            out = weight.shape[1 if name.startswith("ups") else 0]
            self.gains[name.replace(".", "_")] = nn.Parameter(torch.ones(out))
        self.auxiliary = nn.Conv3d(FEATURES, 3, 1)
        self.scale = nn.Parameter(torch.tensor(math.log(6.0)))

    def weights(self) -> dict[str, Tensor]:
        """Parameters of the plain network."""
        found = dict(self.network.named_parameters())
        for name, kind in self.kinds.items():
            weight = found[name]
            axes = (0, 2, 3, 4) if kind == "up" else (1, 2, 3, 4)
            inputs = weight.shape[0] if kind == "up" else weight[0].numel()
            if kind == "first":  # which must see the gray value itself, not only differences
                weight = weight / weight.square().mean(axes, keepdim=True).sqrt().clamp(min=1e-6)
            else:
                weight = weight - weight.mean(axes, keepdim=True)
                weight = weight / weight.std(axes, keepdim=True).clamp(min=1e-6)
            shape = [-1 if a == (1 if kind == "up" else 0) else 1 for a in range(5)]
            gain = self.gains[name.replace(".", "_")].view(shape)
            # Keeps the variance behind a ReLU of normal numbers, whose mean is not 0.
            found[name] = weight * gain * math.sqrt(2 / (1 - 1 / math.pi) / inputs)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, Z, Y, X) → features (N, 16, Z, Y, X)."""
        features: Tensor = functional_call(self.network, self.weights(), (x,))
        return features

    def start_from(self, other: Learned) -> None:
        """Take the weights of a network with other kernels, summed or averaged along z."""
        with torch.no_grad():
            theirs = dict(other.named_parameters())
            for name, own in self.named_parameters():
                weight = theirs[name]
                if weight.shape != own.shape:
                    weight = weight.mean(2, keepdim=True)
                own.copy_(weight)


# --- the filters of the product ---------------------------------------------------------------


@torch.no_grad()
def bank_features(gray: Tensor, spacing: Tensor) -> Tensor:
    """Features of the product's filter bank, (N, 21, Z, Y, X): what the network has to add to."""
    found = []
    for image, step in zip(gray, spacing.tolist(), strict=True):
        read = partial(read_box, image)
        found.append(filter_bank(read, (0, 0, 0), tuple(image.shape), (step, 1.0, 1.0)))
    return torch.stack(found)


def read_box(image: Tensor, start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
    """(1, z, y, x) of an image whose border voxels go on outside."""
    for axis, (a, b) in enumerate(zip(start, stop, strict=True)):
        index = torch.arange(a, b, device=image.device).clamp(0, image.shape[axis] - 1)
        image = image.index_select(axis, index)
    return image[None]


# --- training ---------------------------------------------------------------------------------


@torch.no_grad()
def compare(learned: Learned, gray: Tensor, crops: Crops, episodes: Episodes) -> dict[str, float]:
    """IoU of a batch with the network's features, those of the product's filters, and both."""
    with torch.autocast(gray.device.type, torch.bfloat16, enabled=gray.device.type == "cuda"):
        features = learned(gray[:, None].contiguous(memory_format=FORM)).float()
    bank = bank_features(gray, crops.spacing)
    found = {}
    for name, maps in (
        ("iou", features),
        ("iou_bank", bank),
        ("iou_both", torch.cat([bank, features], 1)),
    ):
        found[name] = round(episode_iou(*solve([maps] * TASKS, episodes), episodes), 3)
    return found


def largest_share(scene: Scene) -> float:
    """Share of the voxels that are of the commonest part."""
    return float(scene.part.flatten().bincount().max()) / scene.part.numel()


class Scenes:
    """A store of scenes that is renewed while it is used."""

    def __init__(self, variant: Variant, device: torch.device, most: int) -> None:
        self.variant, self.device, self.most = variant, device, most
        self.scenes: list[Scene] = []
        self.made, self.seconds = 0, 0.0

    def add(self) -> None:
        """Make a scene; it takes the place of the oldest one where the store is full."""
        begin = time.perf_counter()
        spacing = log_uniform(*self.variant.spacing)
        if self.variant.turn and random.random() < 0.5:
            spacing = 1.0
        for _ in range(4):
            scene = make_scene(Grid(self.variant.scene, spacing, self.device))
            # One that is almost all of one part teaches nothing.
            if largest_share(scene) < 0.995:
                break
        if len(self.scenes) < self.most:
            self.scenes.append(scene)
        else:
            self.scenes[self.made % self.most] = scene
        self.made += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - begin

    def batch(self, n: int) -> tuple[Tensor, Tensor, Crops]:
        """Gray values, the same without noise, and the truth of random crops."""
        chosen = random.choices(self.scenes, k=n)
        crops = crop_scenes(chosen, self.variant.crop, self.variant.turn)
        gray, clean = render(crops)
        return gray, clean, inner(crops)


def loss_of(
    learned: Learned,
    gray: Tensor,
    clean: Tensor,
    crops: Crops,
    any_axis: bool,
) -> tuple[Tensor, dict[str, float | Tensor], tuple[Tensor, Tensor, Episodes]]:
    """The loss of a batch, its parts, and the episodes with their scores."""
    x = gray[:, None].contiguous(memory_format=FORM)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
        features = learned(x)
        auxiliary = learned.auxiliary(features)
    features, auxiliary = features.float(), auxiliary.float()
    episodes = make_episodes(crops, any_axis)
    # The first task has the features alone, the second has filters besides, which the features
    # should add to.
    joined = torch.cat([features, few_filters(gray, crops.spacing)], 1)
    scores, known = solve([features, joined], episodes)
    main = episode_loss(scores, known, learned.scale, episodes)
    edge = (crops.distance < 1.3).float()
    border = functional.binary_cross_entropy_with_logits(auxiliary[:, 0], edge)
    distance = functional.smooth_l1_loss(auxiliary[:, 1], crops.distance.clamp(max=12) / 6)
    denoised = functional.smooth_l1_loss(auxiliary[:, 2], clean)
    # Features of a common size: the ridge does not care, the perceptron and fp16 do.
    size = features.square().mean().sqrt()
    total = main + 0.3 * border + 0.3 * distance + 0.3 * denoised + 0.01 * (size - 1).square()
    parts = {"episodes": main, "border": border, "distance": distance, "denoised": denoised}
    return total, {k: v.detach() for k, v in parts.items()}, (scores, known, episodes)


def schedule(share: float) -> float:
    """Learning rate at a share of the time: a rise, then a cosine."""
    return (
        PEAK_RATE
        * min(1.0, share / 0.03 + 0.02)
        * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
    )


def train(
    variant: Variant,
    learned: Learned,
    device: torch.device,
    seconds: float,
    batch: int,
    most: int,
) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """Train for so many seconds; yields averaged networks, now and then and in the end."""
    begin = time.perf_counter()
    scenes = Scenes(variant, device, most)
    while len(scenes.scenes) < min(most, 4 * batch):
        scenes.add()
        if time.perf_counter() - begin > 0.1 * seconds and len(scenes.scenes) >= 4:
            break
    print(
        f"{variant.name}: {scenes.made} scenes of {variant.scene} in {scenes.seconds:.1f} s",
        flush=True,
    )
    learned.to(memory_format=FORM)
    averaged = copy.deepcopy(learned)
    plain = [p for p in learned.parameters() if p.ndim < 2]
    kernels = [p for p in learned.parameters() if p.ndim >= 2]
    optimizer = torch.optim.AdamW(
        [{"params": kernels, "weight_decay": 1e-2}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_RATE, betas=(0.9, 0.98),
    )  # fmt: skip
    history: list[dict[str, Any]] = []
    sums: dict[str, Tensor] = {}
    since, skipped = 0, 0
    saved = logged = time.perf_counter()
    for step in itertools.count():
        now = time.perf_counter()
        share = (now - begin) / seconds
        if share >= 1:
            break
        if scenes.seconds < GENERATING * (now - begin):
            scenes.add()
        for group in optimizer.param_groups:
            group["lr"] = schedule(share)
        gray, clean, crops = scenes.batch(batch)
        loss, parts, answer = loss_of(learned, gray, clean, crops, variant.turn)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        size = nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
        if not math.isfinite(float(size)):
            skipped += 1
            continue
        optimizer.step()
        decay = min(0.995, (1 + step) / (10 + step))
        with torch.no_grad():
            means, own = list(averaged.parameters()), list(learned.parameters())
            torch._foreach_lerp_(means, own, 1 - decay)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0) + value
        since += 1
        now = time.perf_counter()
        if now - logged > LOG_EVERY or step == 0:
            figures = {n: round(float(v) / since, 4) for n, v in sums.items()}
            figures |= compare(learned, gray, crops, answer[2])
            memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
            figures |= {
                "network": variant.name, "second": round(now - begin, 1), "step": step,
                "rate": round(schedule(share), 5), "gradient": round(float(size), 3),
                "ms_a_step": round((now - logged) / since * 1e3, 1), "scenes": scenes.made,
                "generating": round(scenes.seconds / (now - begin), 2), "skipped": skipped,
                "gib": round(memory, 1),
            }  # fmt: skip
            history.append(figures)
            print(figures, flush=True)
            sums, since, logged = {}, 0, time.perf_counter()
        if now - saved > SAVE_EVERY:
            yield averaged, {"steps": step + 1, "history": history}
            saved = time.perf_counter()
    yield averaged, {"steps": step, "history": history}


@torch.no_grad()
def packed(variant: Variant, averaged: nn.Module, facts: dict[str, Any]) -> dict[str, Any]:
    """What the file says about a network: its configuration, and plain weights in fp16."""
    weights = {k: v.half().cpu().contiguous() for k, v in averaged.weights().items()}
    return {
        "config": variant.config.model_dump(mode="json"),
        "weights": weights,
        "spacing": variant.spacing,
        **facts,
    }


def write(found: dict[str, Any], path: Path) -> None:
    """Replace the file at once."""
    part = path.with_suffix(".part")
    torch.save(found, part)
    os.replace(part, path)


def main() -> None:
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240, help="both networks, all in all")
    parser.add_argument("--out", type=Path, required=True, help="file of the weights")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=12, help="volumes of a step")
    parser.add_argument("--scenes", type=int, default=256, help="kept at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="tiny networks and volumes")
    parser.add_argument("--only", choices=("cubic", "thick"), help="one network")
    options = parser.parse_args()
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    wanted = [v for v in variants(options.small) if options.only in (None, v.name)]
    found: dict[str, Any] = {}
    before: Learned | None = None
    for number, variant in enumerate(wanted):
        learned = Learned(variant.config).to(device)
        if before is not None:
            learned.start_from(before)
        left = options.seconds - (time.perf_counter() - begin)
        seconds = left / (len(wanted) - number)
        for averaged, facts in train(
            variant, learned, device, seconds, options.batch, options.scenes
        ):
            found[variant.name] = packed(variant, averaged, facts)
            write(found, options.out)
            before = averaged
        size = options.out.stat().st_size / 1e6
        print(
            f"{variant.name}: {facts['steps']} steps, {options.out} has {size:.1f} MB", flush=True
        )


if __name__ == "__main__":
    main()
