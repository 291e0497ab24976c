"""3D U²-Net: what is shared between the domains, and what each has of its own."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from napari_unet3d.networks.geometry import parameter_count
from napari_unet3d.networks.universal import Domain, OfDomains, UniversalUNetConfig

CELLS, VESSELS = Domain(name="cells", n_classes=3), Domain(name="vessels", in_channels=2)
SMALL = UniversalUNetConfig(
    widths=(4, 8, 16),
    strides=((1, 2, 2), (2, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
)
BOTH = SMALL.for_domains((CELLS, VESSELS), 0)
TILE = (8, 16, 16)


def built(config: UniversalUNetConfig, seed: int = 0):
    torch.manual_seed(seed)
    return config.build().eval()


def image(channels: int) -> torch.Tensor:
    return torch.randn(1, channels, *TILE, generator=torch.Generator().manual_seed(1))


def test_each_domain_has_channels_and_classes_of_its_own():
    network = built(BOTH)
    with torch.no_grad():
        cells = network(image(1))
        network.enter(BOTH.for_domains(BOTH.domains, 1))
        vessels = network(image(2))
    assert (cells.shape, vessels.shape) == ((1, 3, *TILE), (1, 2, *TILE))


def test_a_unit_convolves_each_channel_by_the_domain_and_mixes_them_for_all():
    network = built(BOTH.model_copy(update={"normalization": "none"}))
    unit = network.encoder[1].first
    x = torch.randn(1, 8, 4, 6, 6)
    mine, shared = unit.depthwise.d0, unit.pointwise
    assert mine.groups == mine.in_channels == 8
    inner = functional.leaky_relu(functional.conv3d(x, mine.weight, padding=1, groups=8), 0.01)
    with torch.no_grad():
        assert torch.allclose(unit(x), functional.conv3d(inner, shared.weight), atol=1e-5)


def test_what_is_shared_mixes_channels_and_nothing_else():
    network = built(BOTH)
    of_domains = {
        f"{name}.{own}"
        for name, module in network.named_modules()
        if isinstance(module, OfDomains)
        for own, _ in module.named_parameters()
    }
    shared = {n.rsplit(".", 2)[0].split(".")[0] for n, _ in network.named_parameters()
              if n not in of_domains and "pointwise" not in n}  # fmt: skip
    assert shared == {"downs", "ups"}, "beside the point-wise convolutions, the steps of levels"
    assert all("d0" in n or "d1" in n for n in of_domains)


def test_a_new_domain_takes_three_percent_of_the_parameters():
    """0.049 of five networks in the paper's code; the default layout of ours."""
    one = UniversalUNetConfig()
    two = one.for_domains((Domain(name="a"), Domain(name="b")), 0)
    more = parameter_count(two) / parameter_count(one) - 1
    assert 0.005 < more < 0.03


def test_only_a_new_domain_learns():
    config = BOTH.with_domain(Domain(name="nuclei"))
    assert (config.active, config.frozen, config.n_classes) == (2, True, 2)
    network = built(config)
    learning = {n for n, p in network.named_parameters() if p.requires_grad}
    assert learning
    assert all(".d2." in name for name in learning)
    assert {n for n, _ in network.named_parameters() if ".d2." in n} == learning


def test_heads_are_those_of_the_active_domain():
    assert BOTH.head_prefixes == ("heads.0.d0.",)
    deeper = UniversalUNetConfig().for_domains((CELLS, VESSELS), 0)
    assert deeper.head_prefixes == ("heads.0.d0.", "heads.1.d0.", "heads.2.d0.")
    other = BOTH.for_classes(7)
    assert [d.n_classes for d in other.domains] == [7, 2]
    assert other.n_classes == 7


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"active": 2}, "none with number 2"),
        ({"n_classes": 4}, "those of the active domain"),
        ({"domains": [{"name": "a"}, {"name": "a"}]}, "the same name"),
        ({"normalization": "batch"}, "statistics of a single stack"),
        ({"strides": [[0, 2, 2]] * 4}, "greater than or equal to 1"),
    ],
)
def test_domains_that_do_not_go_together(changes, reason):
    domains = [{"name": "a"}, {"name": "b"}]
    with pytest.raises(ValidationError, match=reason):
        UniversalUNetConfig.model_validate({"domains": domains} | changes)
