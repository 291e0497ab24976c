"""A session is typed, frozen, and a JSON text as far as it can be."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig, TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef, parse_slices
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import ClassScore, HeldOutScores
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.session.session import NamedModel, RunSettings, Session, SessionRecord

NETWORK = UNetConfig(widths=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2, padding="same")


@pytest.fixture
def bundle() -> ModelBundle:
    return random_bundle(NETWORK, [2])


def series() -> Session:
    """Three time points, one class, two held-out slices."""
    shape = (3, 4, 5, 6)
    held_out = frozenset({SliceRef(0, 2, 1), SliceRef(2, 5)})
    return Session(
        volume=Volume(np.zeros(shape, np.uint8), "TZYX", name="cells"),
        image_path=Path("cells.tif"),
        annotation=SparseAnnotation(np.zeros(shape, np.uint8), (default_class(2),), held_out),
        settings=RunSettings(
            training=TrainingConfig(seconds=30, patch_shape=(8, 24, 24)),
            prediction=PredictionConfig(overlap=0.25),
            outputs=("uncertainty",),
        ),
    )


def test_what_runs_cannot_be_changed_from_outside() -> None:
    session = series()
    with pytest.raises(FrozenInstanceError):
        session.resume = True  # type: ignore[misc]
    changed = replace(session, resume=True)
    assert changed.resume
    assert not session.resume
    assert changed.annotation is session.annotation


def test_time_points_that_are_segmented() -> None:
    session = series()
    assert session.time_points == 3
    chosen = session.settings.model_copy(update={"times": (0, 2)})
    assert replace(session, settings=chosen).time_points == 2
    assert Session().time_points == 0


def test_a_session_without_anything_has_a_record() -> None:
    assert Session().record() == SessionRecord()


def test_the_record_survives_as_json(bundle: ModelBundle) -> None:
    scores = HeldOutScores(9, 1.5, (ClassScore(2, 0.5, None, 7),), ("z=5",), 3, 0.5, final=True)
    session = replace(series(), model=NamedModel.trained_on("cells", bundle), scores=scores)
    record = session.record()
    again = SessionRecord.model_validate_json(record.model_dump_json())
    assert again == record
    assert again.axes == "TZYX"
    assert again.image_path == Path("cells.tif")
    assert session.annotation is not None
    assert {ref for text in again.held_out for ref in parse_slices(text)} == (
        session.annotation.held_out
    )
    assert again.settings == session.settings
    assert again.model_name == "trained on 'cells'"
    assert again.scores == scores


def test_a_model_from_a_file_has_the_name_of_the_file(bundle: ModelBundle, tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "cells.unet3d")
    model = NamedModel.load(path)
    assert (model.name, model.path) == ("cells.unet3d", path)
    assert model.bundle.network == bundle.network
    with pytest.raises(BadInputError, match=r"nowhere\.unet3d"):
        NamedModel.load(tmp_path / "nowhere.unet3d")
