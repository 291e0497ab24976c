"""Says what to do next, from what is open and painted, and after a training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from napari_unet3d.config import BACKGROUND, FIRST_CLASS, ClassInfo
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.wording import counted, either, joined
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.texts import few_text

_HIGHEST = 255
"""The largest label value of a class."""
_NAMED = 3
"""Slices or labels that a sentence names; the others are counted, as nobody reads long lists."""
_ENOUGH = 3
"""Painted slices. With more of them the accuracy rises slowly (docs/benchmarks.md)."""


@dataclass(frozen=True)
class Situation:
    """Everything that the hint depends on.

    Parameters
    ----------
    image, annotation
        Whether an image and an annotation are chosen.
    slices
        The painted slices.
    classes
        The class table.
    held_out
        The slices that are not trained on.
    """

    image: bool = False
    annotation: bool = False
    slices: tuple[PaintedSlice, ...] = ()
    classes: tuple[ClassInfo, ...] = ()
    held_out: frozenset[SliceRef] = frozenset()


@dataclass(frozen=True)
class Hint:
    """The next step.

    Parameters
    ----------
    text
        One or two sentences.
    missing
        Label values that are painted and have no class: a button can add classes for them.
    ready
        Whether a training can begin, and further slices are what helps it.
    """

    text: str
    missing: tuple[int, ...] = ()
    ready: bool = False

    @property
    def button(self) -> str:
        """Text of the button that adds the missing classes; "" when none is missing."""
        if not self.missing:
            return ""
        noun = either(len(self.missing), "class", "classes")
        return f"Add {noun} {_list(self.missing)}"


def next_step(now: Situation) -> Hint:
    """Find the next step of annotating, up to the start of a training."""
    if not now.image:
        return Hint("Open a 3D stack to begin: File ▸ Open, or File ▸ Open Sample ▸ napari-unet3d.")
    if not now.annotation:
        return Hint("Press New for an annotation layer that fits the image.")
    if not _values(now.slices):
        return Hint(
            "Choose a class in the table, which takes the brush (or press Alt+2), and paint a "
            "structure on one slice; then some background."
        )
    known = {BACKGROUND, *(c.value for c in now.classes)}
    if unknown := sorted(_values(now.slices) - known):
        return _unknown(unknown, now.slices)
    trained = tuple(s for s in now.slices if s.ref not in now.held_out)
    if not trained:
        refs = _list(s.ref for s in now.slices)
        what = f"The painted slice {refs} is" if len(now.slices) == 1 else "All painted slices are"
        more = "" if len(now.slices) == 1 else f" ({refs})"
        return Hint(
            f"{what} held out{more}, so nothing is left to train on. Paint another slice, or "
            "choose one in the table and press 'Train on … again'."
        )
    if lacking := _lacking(now, trained):
        return Hint(lacking)
    return Hint(_ready(trained, now.held_out), ready=True)


def can_train(now: Situation) -> bool:
    """Whether a training can begin: two kinds of voxels are painted, and all have a class."""
    values = _values(s for s in now.slices if s.ref not in now.held_out)
    known = {BACKGROUND, *(c.value for c in now.classes)}
    return now.image and now.annotation and len(values) > 1 and _values(now.slices) <= known


def after_training(bundle: ModelBundle, layer: str) -> str:
    """Say what to do after a training: look, paint, continue; or give it more time.

    Parameters
    ----------
    bundle
        The model that was trained.
    layer
        Name of the layer that shows its result.
    """
    if bundle.record.starved:
        return f"{few_text(bundle)} The model is kept in this window: give it more time."
    return (
        f"The model is kept in this window. Look at the layer '{layer}', paint a slice where it "
        "is wrong, then press Continue training."
    )


def _unknown(unknown: Sequence[int], slices: Iterable[PaintedSlice]) -> Hint:
    where = [s.ref for s in slices if any(s.counts.get(value) for value in unknown)]
    verb = either(len(unknown), "is", "are")
    text = (
        f"{either(len(unknown), 'Label')} {_list(unknown)} {verb} painted on {_list(where)} and "
        f"{verb} in no class."
    )
    missing = tuple(v for v in unknown if FIRST_CLASS <= v <= _HIGHEST)
    if len(missing) < len(unknown):
        return Hint(
            f"{text} Classes have labels from {FIRST_CLASS} to {_HIGHEST}: repaint the others.",
            missing,
        )
    return Hint(
        f"{text} Add {either(len(unknown), 'a class', 'classes')}, or erase the paint.", missing
    )


def _lacking(now: Situation, trained: Sequence[PaintedSlice]) -> str:
    """Say what must still be painted before a training is useful; "" when nothing."""
    values = _values(trained)
    held_out = [s for s in now.slices if s.ref in now.held_out]
    where = " on the slices to train on" if held_out else ""
    if values == {BACKGROUND}:
        return f"Only background is painted{where}. Choose a class in the table and paint it too."
    if BACKGROUND not in values and len(values) == 1:
        more = f" Only one class is painted{where}." if held_out else ""
        return "Paint some background too, or complete a slice: the rest becomes background." + more
    absent = [f"'{c.name}'" for c in now.classes if c.value not in values]
    if absent:
        verb = either(len(absent), "is", "are")
        it = either(len(absent), "it", "them")
        return f"{_list(absent)} {verb} not painted{where} yet. Paint some of {it}, or remove {it}."
    return ""


def _ready(trained: Sequence[PaintedSlice], held_out: frozenset[SliceRef]) -> str:
    number = counted(len(trained), "slice")
    if len(trained) < _ENOUGH:
        return f"Ready to train on {number}. Three or more work better."
    if not held_out:
        return (
            f"Ready to train on {number}. To measure the result, paint one more and press Hold out."
        )
    return f"Ready to train on {number}, and to measure on {len(held_out)} held out."


def _values(slices: Iterable[PaintedSlice]) -> set[int]:
    return {value for s in slices for value, count in s.counts.items() if count}


def _list(items: Iterable[object]) -> str:
    """Write items as "a", "a and b" or "a, b, c and 4 more"."""
    names = [str(item) for item in items]
    if len(names) > _NAMED + 1:
        names = [*names[:_NAMED], f"{len(names) - _NAMED} more"]
    return joined(names)
