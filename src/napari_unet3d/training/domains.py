"""Several stacks that train one universal network, in turns (Huang et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.universal import Domain, UniversalUNetConfig
from napari_unet3d.training.plan import TrainingPlan, plan_network, plan_training


@dataclass(frozen=True)
class DomainStack:
    """A stack of a domain.

    Attributes
    ----------
    name
        Name of the domain.
    volume, annotation
        The stack and what is painted on it.
    """

    name: str
    volume: Volume
    annotation: SparseAnnotation


def plan_stacks(
    stacks: Sequence[tuple[Volume, SparseAnnotation]], config: TrainingConfig
) -> TrainingPlan:
    """Plan the training of any network on several stacks of the same classes, in turns.

    Levels and kernels of the network follow the first stack; so do its statistics and its
    calibration.

    Raises
    ------
    BadInputError
        As `plan_training`; or the stacks differ in their channels or classes.
    """
    if not stacks:
        raise BadInputError("There is no stack. Give one or more.")
    first = plan_training(*stacks[0], config)
    for volume, annotation in stacks[1:]:
        if volume.n_channels != first.network.in_channels:
            raise BadInputError(
                f"The first stack has {first.network.in_channels} channels, another one "
                f"{volume.n_channels}. Give stacks with the same channels."
            )
        tables = annotation.classes, first.annotation.classes
        painted, trained = ([c.value for c in table] for table in tables)
        if painted != trained:
            raise BadInputError(
                f"The first stack has the classes {trained}, another one {painted}. Give stacks "
                "with the same classes."
            )
    others = [plan_training(*stack, config, network=first.network) for stack in stacks[1:]]
    return replace(first, turns=tuple(others))


def plan_domains(stacks: Sequence[DomainStack], config: TrainingConfig) -> TrainingPlan:
    """Plan the training of one universal network on stacks of several domains, in turns.

    Levels and kernels of the network follow the first stack.

    Parameters
    ----------
    stacks
        One of each domain.
    config
        Budget, device, recipe.

    Raises
    ------
    BadInputError
        As `plan_training`; or the names of two domains are the same.
    """
    if not stacks:
        raise BadInputError("There is no stack. Give one of each domain.")
    names = [stack.name for stack in stacks]
    if len(set(names)) < len(names) or not all(names):
        raise BadInputError(f"The domains are {names}. Give each a name of its own.")
    config = config.model_copy(update={"network": "universal_unet"})
    first = plan_network(stacks[0].volume, stacks[0].annotation, config)
    assert isinstance(first, UniversalUNetConfig)
    domains = tuple(_domain(stack) for stack in stacks)
    plans = [
        plan_training(s.volume, s.annotation, config, network=first.for_domains(domains, number))
        for number, s in enumerate(stacks)
    ]
    return replace(plans[0], turns=tuple(plans[1:]))


def plan_new_domain(
    stack: DomainStack, config: TrainingConfig, start_from: ModelBundle
) -> TrainingPlan:
    """Plan the training of a new domain of a universal network; the others stay as they are.

    Parameters
    ----------
    stack
        The stack of the new domain.
    config
        Budget, device, recipe.
    start_from
        The model of the other domains.

    Raises
    ------
    BadInputError
        As `plan_training`; or the model is of another kind, or has such a domain already.
    """
    network = start_from.network
    if not isinstance(network, UniversalUNetConfig):
        raise BadInputError(
            f"The model has a network of the kind '{network.kind}', which knows no domains. Give "
            "one that was trained on domains."
        )
    if stack.name in start_from.domains or not stack.name:
        raise BadInputError(
            f"The model knows the domains {list(start_from.domains)}: give the new one another "
            f"name than {stack.name!r}."
        )
    more = network.with_domain(_domain(stack))
    return plan_training(stack.volume, stack.annotation, config, start_from, network=more)


def _domain(stack: DomainStack) -> Domain:
    outputs = len(stack.annotation.classes) + 1
    return Domain(name=stack.name, in_channels=stack.volume.n_channels, n_classes=outputs)
