"""Why tools and actions of the tool bar are not possible now, in words."""

from __future__ import annotations

from dataclasses import dataclass

from napari_unet3d.data.slices import SliceRef

NO_PREDICTION = "no prediction is visible. Press D to show it; without one, train first."
_ON_SLICE = ("grow", "take", "accept", "copy", "interpolate", "fill", "smooth")


@dataclass(frozen=True)
class ToolSituation:
    """What the tools find.

    Parameters
    ----------
    has_annotation
        Whether an annotation is chosen.
    shown
        The slice in view; None in 3D.
    held_out
        Whether that slice is held out.
    has_prediction
        Whether a prediction is visible.
    follows_prediction
        Whether Grow follows the prediction.
    proposed
        The proposed slices.
    before, after
        The nearest annotated slices of this orientation that are not held out.
    is_interpolating
        Whether proposals are being computed.
    """

    has_annotation: bool
    shown: SliceRef | None = None
    held_out: bool = False
    has_prediction: bool = False
    follows_prediction: bool = False
    proposed: frozenset[SliceRef] = frozenset()
    before: SliceRef | None = None
    after: SliceRef | None = None
    is_interpolating: bool = False


def tool_reasons(situation: ToolSituation) -> dict[str, str]:
    """Say why tools and actions are not possible; those that are have no entry."""
    s = situation
    reasons: dict[str, str] = {}
    if not s.proposed:
        reasons |= dict.fromkeys(("accept all", "discard"), "nothing is proposed.")
    if not s.has_annotation:
        return reasons | dict.fromkeys(_ON_SLICE, "there is no annotation. Open an image.")
    if s.shown is None:
        return reasons | dict.fromkeys(_ON_SLICE, "no single slice is in view. Show it in 2D.")
    if not s.has_prediction and s.shown not in s.proposed:
        reasons["accept"] = NO_PREDICTION
        if s.follows_prediction:
            reasons["grow"] = NO_PREDICTION
    if not s.has_prediction and not s.proposed:
        reasons["take"] = NO_PREDICTION
    if s.held_out:
        text = f"{s.shown} is held out to measure the model. Train on it again first (H)."
        reasons |= dict.fromkeys(("accept", "copy"), text)
    if s.before is None and s.after is None:
        reasons["copy"] = "no other slice of this orientation is annotated for training."
    if s.is_interpolating:
        reasons["interpolate"] = "proposals are being computed."
    elif s.before is None or s.after is None:
        reasons["interpolate"] = (
            "a slice before and one after the view must be annotated for training."
        )
    return reasons
