"""The model file: it keeps everything, and believes nothing."""

from __future__ import annotations

import json
import os
import struct
import threading

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from bundles import random_bundle
from limits import largest_file
from napari_unet3d.config import TrainingConfig, default_class
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.migrations import FORMAT_VERSION
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.model.record import HeldOutRecord, TrainingRecord
from napari_unet3d.networks.attention import AttentionUNetConfig
from napari_unet3d.networks.nested import NestedUNetConfig
from napari_unet3d.networks.unet import UNet3D, UNetConfig
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import MORE_SCALES, SCALES
from napari_unet3d.pixels.trees import ObliviousTrees

SMALL = UNetConfig(
    widths=(4, 8),
    strides=((1, 2, 2),),
    kernels=((1, 3, 3), (3, 3, 3)),
    padding="same",
    normalization="batch",
    n_classes=3,
)


def make_bundle(network: UNetConfig = SMALL, **changes) -> ModelBundle:
    record = TrainingRecord(
        config=TrainingConfig(iterations=7),
        iterations=7,
        seconds=1.5,
        device="cpu",
        precision="bf16",
        patch_shape=(8, 32, 32),
        held_out=(HeldOutRecord(value=2, iou=0.5, dice=None, voxels=3),),
    )
    given = {
        "classes": (default_class(2, "nucleus µ"), default_class(5, "membrane")),
        "intensity": IntensityNormalization(low=(0.0,), high=(9.5,), mean=(3.1,), std=(0.7,)),
        "voxel_size": (0.3, 0.1, 0.1),
        "unit": "µm",
        "record": record,
        "state": {
            "optimizer/head.bias/step": torch.tensor(7.0),
            "scaler/scale": torch.tensor(1024.0),  # of fp16 gradients
        },
    }
    return random_bundle(network, **(given | changes))


def with_pixels() -> ModelBundle:
    pixels = PixelClassifier(SMALL.in_channels, SMALL.n_classes)
    calibration = Calibration(network=0.3, pixels=0.5, shift=(0.0, 0.25, -1.0))
    return make_bundle(pixels=pixels.state_dict(), calibration=calibration)


def test_the_pixel_classifier_is_kept(tmp_path):
    bundle = with_pixels()
    found = ModelBundle.load(bundle.save(tmp_path / "model.unet3d"))
    assert found.calibration == bundle.calibration
    assert set(found.weights) == set(bundle.weights)
    features = torch.randn(5, 21)
    assert torch.equal(found.build_pixels()(features), bundle.build_pixels()(features))


@pytest.mark.parametrize("shift", [[0.0], [0.0] * 4])
def test_a_calibration_for_other_classes_is_refused(saved, shift):
    rewritten(saved, with_description(lambda d: d["calibration"].update(shift=shift)))
    assert "calibration" in refused(saved)


def test_a_missing_pixel_classifier_is_noticed(tmp_path):
    path = with_pixels().save(tmp_path / "model.unet3d")
    without = {n: t for n, t in load_file(path).items() if not n.startswith("pixels/")}
    rewritten(path, lambda _: None, lambda _: without)
    assert "pixel classifier is missing" in refused(path)


def test_a_pixel_classifier_that_has_no_weight_is_left_out(tmp_path):
    """Whatever its shape is: an older one saw other features."""
    path = with_pixels().save(tmp_path / "model.unet3d")

    def alone(metadata) -> None:
        with_description(lambda d: d.pop("calibration"))(metadata)

    rewritten(path, alone, lambda t: t | {"pixels/mean": torch.zeros(3)})
    found = ModelBundle.load(path)
    assert found.build_pixels() is None
    assert found.build_mixture(folded=True).is_network_alone


def test_features_cannot_be_divided_by_zero(tmp_path):
    path = with_pixels().save(tmp_path / "model.unet3d")
    rewritten(path, lambda _: None, lambda t: t | {"pixels/std": torch.zeros(21)})
    assert "must be positive" in refused(path)


def test_a_pixel_classifier_that_does_not_fit_is_refused(tmp_path):
    path = with_pixels().save(tmp_path / "model.unet3d")
    rewritten(path, lambda _: None, lambda t: t | {"pixels/mean": torch.zeros(3)})
    assert "pixels/mean" in refused(path)


@pytest.mark.parametrize("asked", [-1, 20, 25, 26])
def test_trees_ask_about_features_that_there_are(tmp_path, asked):
    """An image of one channel has 21, and 26 for trees that were grown on several slices."""
    trees = ObliviousTrees(SMALL.n_classes)
    trees.feature.fill_(asked)
    pixels = PixelClassifier(SMALL.in_channels, SMALL.n_classes, trees=trees)
    bundle = make_bundle(pixels=pixels.state_dict(), calibration=Calibration(pixels=0.5))
    path = bundle.save(tmp_path / "model.unet3d")
    if asked in (20, 25):
        scales = ModelBundle.load(path).build_pixels().scales
        assert scales == (MORE_SCALES if asked == 25 else SCALES)
    else:
        assert "'pixels/trees.feature' is out of range" in refused(path)


@pytest.fixture
def saved(tmp_path):
    return make_bundle().save(tmp_path / "model.unet3d")


def header_of(path) -> dict:
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + n])


def rewritten(path, change, tensors=None) -> None:
    """Write the file again with its description changed, as someone with bad intent would."""
    metadata = header_of(path)["__metadata__"]
    found = load_file(path)
    change(metadata)
    save_file(found if tensors is None else tensors(found), path, metadata)


def with_description(change):
    def apply(metadata) -> None:
        description = json.loads(metadata["bundle"])
        change(description)
        metadata["bundle"] = json.dumps(description)

    return apply


def refused(path) -> str:
    with pytest.raises(BadInputError) as caught:
        ModelBundle.load(path)
    text = str(caught.value)
    assert str(path) in text
    assert len(text) < 1000
    return text


# --- saving and opening ---------------------------------------------------------------------


def test_nothing_is_lost(tmp_path):
    bundle = make_bundle()
    found = ModelBundle.load(bundle.save(tmp_path / "a.unet3d"))
    for field in ("network", "classes", "intensity", "voxel_size", "unit", "record"):
        assert getattr(found, field) == getattr(bundle, field)
    for field in ("weights", "state"):
        before, after = getattr(bundle, field), getattr(found, field)
        assert set(before) == set(after)
        assert all(torch.equal(t, after[name]) for name, t in before.items())


@pytest.mark.parametrize("normalization", ["batch", "tile", "instance", "channel", "none"])
def test_saved_and_loaded_predicts_identically(tmp_path, normalization):
    bundle = make_bundle(SMALL.model_copy(update={"normalization": normalization}))
    found = ModelBundle.load(bundle.save(tmp_path / "a.unet3d"))
    x = torch.randn(1, 1, 4, 8, 8)
    with torch.inference_mode():
        assert torch.equal(bundle.build()(x), found.build()(x))


def test_channels_last_weights_are_saved(tmp_path):
    bundle = make_bundle()
    weights = UNet3D(SMALL).to(memory_format=torch.channels_last_3d).state_dict()
    found = ModelBundle.load(bundle.model_copy(update={"weights": weights}).save(tmp_path / "a"))
    assert all(torch.equal(t, found.weights[name]) for name, t in weights.items())


def test_file_is_safetensors_and_json_and_no_pickle(saved):
    data = saved.read_bytes()
    assert not data.startswith(b"PK")  # torch.save writes a zip with a pickle in it
    metadata = header_of(saved)["__metadata__"]
    assert metadata["format_version"] == str(FORMAT_VERSION)
    assert json.loads(metadata["bundle"])["classes"][0]["name"] == "nucleus µ"
    for marker in (b"ctorch", b"cbuiltins", b"pickle"):
        assert marker not in data


def test_the_lean_file_is_smaller_and_predicts_the_same(tmp_path):
    state = {f"weights/{n}": t for n, t in make_bundle().weights.items()}
    bundle = make_bundle(state=state)
    full, lean = bundle.save(tmp_path / "a"), bundle.without_state().save(tmp_path / "b")
    assert lean.stat().st_size < 0.7 * full.stat().st_size
    found = ModelBundle.load(lean)
    assert not found.state
    assert all(torch.equal(t, found.weights[n]) for n, t in bundle.weights.items())


def test_saving_leaves_nothing_beside_the_file(saved):
    assert os.listdir(saved.parent) == [saved.name]
    make_bundle().save(saved)
    assert os.listdir(saved.parent) == [saved.name]


def test_others_may_read_the_file_as_any_other(saved):
    plain = saved.with_name("plain")
    plain.write_bytes(b"")
    assert saved.stat().st_mode == plain.stat().st_mode


def test_building_twice_gives_networks_of_their_own(saved):
    bundle = ModelBundle.load(saved)
    first, second = bundle.build(), bundle.build()
    with torch.no_grad():
        first.head.bias.add_(1)
    assert not torch.equal(first.head.bias, second.head.bias)


# --- saving that fails ----------------------------------------------------------------------


def test_existing_file_survives_a_disk_that_gets_full(saved):
    """A limit on the size of files stands in for the full disk: writing really fails."""
    before = saved.read_bytes()
    bundle = make_bundle(record=make_bundle().record.model_copy(update={"seconds": 99.0}))
    with (
        largest_file(2000),
        pytest.raises(RunFailedError, match=r"model\.unet3d could not be written"),
    ):
        bundle.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_missing_folder(tmp_path):
    with pytest.raises(BadInputError, match="nowhere"):
        make_bundle().save(tmp_path / "nowhere" / "model.unet3d")


def test_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(BadInputError, match="is a folder"):
        make_bundle().save(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BadInputError, match="cannot be written to"):
            make_bundle().save(tmp_path / "model.unet3d")
    finally:
        tmp_path.chmod(0o700)


# --- files that are wrong -------------------------------------------------------------------


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing.unet3d")
    refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"hello, this is a text and no model", b"PK\x03\x04" + b"\0" * 100, b"\xff" * 64],
    ids=["empty", "one byte", "text", "zip", "ones"],
)
def test_file_that_is_something_else(tmp_path, content):
    path = tmp_path / "model.unet3d"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_truncated_file(saved, share):
    data = saved.read_bytes()
    ModelBundle.load(saved)  # precondition: whole, it opens
    saved.write_bytes(data[: int(len(data) * share)])
    refused(saved)


def test_other_safetensors_file(tmp_path):
    path = tmp_path / "model.unet3d"
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})
    assert "no .unet3d model" in refused(path)


@pytest.mark.parametrize(
    "version", [str(FORMAT_VERSION + 1), "99", "0", "", "1.5", "-1", "²", "9" * 9999]
)
def test_newer_or_strange_version(saved, version):
    rewritten(saved, lambda m: m.update(format_version=version))
    refused(saved)


def test_newer_version_says_update(saved):
    rewritten(saved, lambda m: m.update(format_version=str(FORMAT_VERSION + 1)))
    assert "update napari-unet3d" in refused(saved)


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "{}", "[" * 100_000, '{"network": NaN}'],
    ids=["empty", "cut", "null", "list", "nothing in it", "nested", "NaN"],
)
def test_description_that_cannot_be_read(saved, text):
    rewritten(saved, lambda m: m.update(bundle=text))
    refused(saved)


def test_missing_description(saved):
    rewritten(saved, lambda m: m.pop("bundle"))
    refused(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(code="__import__('os')"),
        lambda d: d["network"].update(widths=[4, 8, 16]),
        lambda d: d["network"].update(kernels=[[2, 2, 2], [3, 3, 3]]),
        lambda d: d["network"].update(normalization="evil"),
        lambda d: d["network"].update(kind="evil"),
        lambda d: d["network"].update(kind=[]),
        lambda d: d["network"].pop("kind"),
        lambda d: d.update(network=[]),
        lambda d: d["network"].update(in_channels=0),
        lambda d: d["network"].update(n_classes=2),
        lambda d: d["classes"].pop(),
        lambda d: d.update(classes=[]),
        lambda d: d["classes"][0].update(value=5),
        lambda d: d["classes"][0].update(value=1),
        lambda d: d["classes"][0].update(color="red; drop"),
        lambda d: d["intensity"].update(std=[0]),
        lambda d: d.update(voxel_size=[0, 1, 1]),
        lambda d: d.update(voxel_size=[float("nan"), 1, 1]),
        lambda d: d["record"].update(iterations=-1),
        lambda d: d["record"].update(config=[]),
        lambda d: d["record"].update(config=None),
        lambda d: d["record"].update(code="__import__('os')"),
        lambda d: d.pop("record"),
    ],
)
def test_tampered_description(saved, change):
    rewritten(saved, with_description(change))
    refused(saved)


def test_the_reason_of_a_refusal_is_plain_and_short(saved):
    rewritten(saved, with_description(lambda d: d["network"].update(kind="x" * 5000)))
    with pytest.raises(BadInputError, match=r"network: There is no network of the kind") as error:
        ModelBundle.load(saved)
    assert len(str(error.value)) < len(str(saved)) + 300


def test_tampered_settings_are_never_used(saved):
    change = {"device": "cpu; rm", "code": "__import__('os')"}
    rewritten(saved, with_description(lambda d: d["record"]["config"].update(change)))
    record = ModelBundle.load(saved).record
    assert record.training_config == TrainingConfig(iterations=7)
    assert len(record.config_notes) == 2


def test_settings_that_are_nested_without_end_are_refused(saved):
    def nest(metadata) -> None:
        inner = "[" * 400 + "]" * 400
        metadata["bundle"] = metadata["bundle"].replace('"seed":0', f'"seed":{inner}')

    rewritten(saved, nest)
    refused(saved)


def test_tampering_is_what_the_last_tests_are_about(saved):
    """Precondition: rewriting alone does no harm."""
    rewritten(saved, with_description(lambda d: None))
    ModelBundle.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t | {"head.weight": torch.zeros(3, 5, 1, 1, 1)},
        lambda t: t | {"extra": torch.zeros(1)},
        lambda t: {n: x for n, x in t.items() if n != "head.bias"},
        lambda t: {},
        lambda t: t | {"head.bias": torch.full((3,), float("nan"))},
        lambda t: t | {"head.bias": torch.full((3,), float("inf"))},
        lambda t: {n: x * 1e25 if x.is_floating_point() else x for n, x in t.items()},
        lambda t: t | {"training/optimizer/head.bias/step": torch.tensor(float("nan"))},
        lambda t: t | {"head.bias": torch.zeros(3).to(torch.float8_e4m3fn)},
        lambda t: t | {"training/weights/evil": torch.zeros(3)},
        lambda t: t | {"training/weights/head.bias": torch.zeros(4)},
    ],
    ids=[
        "shape", "extra", "missing", "none", "nan", "inf", "too large", "nan state", "float8",
        "state name",
        "state shape",
    ],
)  # fmt: skip
def test_wrong_weights(saved, change):
    rewritten(saved, lambda m: None, change)
    refused(saved)


def test_absurd_widths_allocate_nothing(saved):
    """A network of 10 GiB in the description, and a small file."""
    huge = {
        "widths": [2048] * 7,
        "strides": [[1, 1, 1]] * 6,
        "kernels": [[7, 7, 7]] * 7,
    }
    rewritten(saved, with_description(lambda d: d["network"].update(huge)))
    process, peak, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        refused(saved)
    finally:
        done.set()
        watcher.join()
    assert peak[0] - before < 200 * 2**20


@pytest.mark.parametrize("strides", [((4, 4, 4),) * 5, ((7, 7, 7),) * 6], ids=["4^5", "7^6"])
def test_a_small_file_whose_network_needs_huge_tiles_is_refused(tmp_path, strides):
    levels = len(strides) + 1
    network = SMALL.model_copy(
        update={"widths": (2,) * levels, "strides": strides, "kernels": ((1, 1, 1),) * levels}
    )
    path = make_bundle(network).save(tmp_path / "model.unet3d")
    assert path.stat().st_size < 100_000
    assert "pools by" in refused(path)


@pytest.mark.parametrize("widths", [[10**9], [4, 10**6], [], [4] * 50, [-4, 8]])
def test_impossible_widths(saved, widths):
    rewritten(saved, with_description(lambda d: d["network"].update(widths=widths)))
    refused(saved)


def test_header_that_claims_to_be_huge(saved):
    data = saved.read_bytes()
    for claim in (2**63, 2**40, len(data) + 1):
        saved.write_bytes(struct.pack("<Q", claim) + data[8:])
        refused(saved)


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_never_gets_through_as_another_error(saved, seed):
    """Whatever bytes are changed: a model, or `BadInputError`."""
    rng = np.random.default_rng(seed)
    data = saved.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(0, 8 + n, 3):
            damaged[at] = rng.integers(256)
        saved.write_bytes(damaged)
        try:
            ModelBundle.load(saved)
            outcomes.add("opened")
        except BadInputError:
            outcomes.add("refused")
    assert "refused" in outcomes


# --- other settings of the network ----------------------------------------------------------


def test_a_model_is_pruned_to_a_part_of_its_weights():
    levels = {"widths": (4, 8, 8), "strides": ((1, 2, 2),) * 2, "kernels": ((1, 3, 3),) * 3}
    network = NestedUNetConfig(**levels, n_classes=SMALL.n_classes)
    bundle = make_bundle(network=network, weights=network.build().state_dict(), state={})
    pruned = bundle.with_network({"pruned": 1})
    assert pruned.network.depth == 1
    assert set(pruned.weights) < set(bundle.weights)
    pruned.build()
    with pytest.raises(BadInputError, match=r"no weights for 'blocks\.0_0\.0\.weight'"):
        bundle.with_network({"kernels": [[3, 3, 3]] * 3})
    with pytest.raises(BadInputError, match="cannot be pruned to 5"):
        bundle.with_network({"pruned": 5})


def test_a_model_that_shows_a_gate_stands_alone():
    levels = {"widths": (4, 8, 8), "strides": ((1, 2, 2),) * 2, "kernels": ((1, 3, 3),) * 3}
    network = AttentionUNetConfig(**levels, n_classes=SMALL.n_classes)
    both = with_pixels()
    bundle = both.model_copy(
        update={"network": network, "weights": network.build().state_dict(), "state": {}}
    )
    shown = bundle.with_network({"gate": 1})
    assert shown.build_mixture(folded=True).is_network_alone
    assert not shown.pixels
