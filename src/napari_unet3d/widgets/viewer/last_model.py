"""The last model of each viewer, which a dock that is closed and opened again finds."""

from __future__ import annotations

import weakref
from typing import Any

from napari_unet3d.session.session import NamedModel

_models: dict[int, NamedModel] = {}
"""By viewer. Not in a layer: the layer may be deleted, and is copied and saved with all it has."""


def last_model(viewer: Any) -> NamedModel | None:
    """The model that was kept last, as long as the viewer lives."""
    return _models.get(id(viewer))


def keep_model(viewer: Any, model: NamedModel) -> None:
    """Keep a model until there is another one, or the viewer is gone."""
    if id(viewer) not in _models:
        weakref.finalize(viewer, _models.pop, id(viewer), None).atexit = False
    _models[id(viewer)] = model
