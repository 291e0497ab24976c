"""Pretraining on synthetic volumes (`benchmarks/pretrain.py`), at a tiny size."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmark_scripts import imported
from napari_unet3d.networks import UNetConfig

CPU = torch.device("cpu")


@pytest.fixture
def scripts() -> Iterator[SimpleNamespace]:
    with imported(["synthetic_scenes", "synthetic", "episodes", "pretrain"]) as modules:
        random.seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield modules


def test_crops_have_truth_and_normalized_gray_values(scripts: SimpleNamespace) -> None:
    scenes = scripts.synthetic_scenes
    grid = scenes.Grid((16, 24, 24), 4.0, CPU)
    made = [scenes.make_scene(grid) for _ in range(3)]
    crops = scripts.synthetic.crop_scenes(made, (8, 16, 16), turn=False)
    gray, clean = scripts.synthetic.render(crops)
    assert gray.shape == clean.shape == crops.part.shape == (3, 8, 16, 16)
    assert torch.isfinite(gray).all() and torch.isfinite(clean).all()
    assert gray.mean((1, 2, 3)).abs().max() < 0.5 and gray.std((1, 2, 3)).max() < 1.6
    for scene in made:
        assert int(scene.part.max()) < scene.count


def test_a_blob_is_as_far_from_its_border_as_it_says(scripts: SimpleNamespace) -> None:
    scenes = scripts.synthetic_scenes
    grid = scenes.Grid((16, 32, 32), 2.0, CPU)
    z, y, x = scenes.coordinates(grid, 1, 0, 1)
    painter = scenes.Painter(grid)
    radius = ((z - 16) ** 2 + (y - 16) ** 2 + (x - 16) ** 2).sqrt()
    painter.cover(scenes.signed_distance(radius**2 - 100, grid))
    scene = painter.scene()
    assert bool((scene.part.bool() == (radius < 10)).all())
    near = (radius - 10).abs() < 2
    error = (scene.distance.float() - (radius - 10).abs())[near]
    assert float(error.abs().max()) < 0.5


def test_stored_weights_are_those_of_a_plain_network(scripts: SimpleNamespace) -> None:
    for variant in scripts.pretrain.variants(small=True):
        learned = scripts.pretrain.Learned(variant.config)
        with torch.no_grad():
            for p in learned.parameters():
                p.add_(0.1 * torch.randn_like(p))
        stored = scripts.pretrain.packed(variant, learned, {})
        plain = UNetConfig.model_validate(stored["config"]).build()
        plain.load_state_dict({k: v.float() for k, v in stored["weights"].items()})
        x = torch.randn(2, 1, 8, 16, 16)
        with torch.no_grad():
            expected, found = learned(x), plain(x)
        assert float((expected - found).abs().max()) < 0.01 * float(expected.abs().max())


def test_a_class_that_a_feature_shows_is_found_in_the_other_slices(
    scripts: SimpleNamespace,
) -> None:
    episodes = scripts.episodes
    target = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (1, 2, 6, 8, 8)))
    support = torch.zeros_like(target, dtype=torch.bool)
    support[:, :, 2] = True
    given = episodes.Episodes(target, support)
    noise = torch.randn(1, 4, 6, 8, 8)
    shown = [torch.cat([noise, 3 - 0.5 * target[:, t, None]], 1) for t in range(2)]
    assert episodes.episode_iou(*episodes.solve(shown, given), given) > 0.99
    assert episodes.episode_iou(*episodes.solve([noise] * 2, given), given) < 0.5
    scale = torch.tensor(2.0)
    losses = [
        float(episodes.episode_loss(*episodes.solve(maps, given), scale, given))
        for maps in (shown, [noise] * 2)
    ]
    assert losses[0] < 0.3 < losses[1]


def test_a_network_of_other_kernels_starts_from_the_first(scripts: SimpleNamespace) -> None:
    cubic, thick = (scripts.pretrain.Learned(v.config) for v in scripts.pretrain.variants(True))
    thick.start_from(cubic)
    assert torch.equal(thick.network.head.weight, cubic.network.head.weight)
    own, theirs = (n.network.encoder[0][0].weight for n in (thick, cubic))
    assert torch.allclose(own[:, :, 0], theirs.mean(2))
