"""A trained model is not lost, whatever happens where it is to be saved."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from bundles import random_bundle
from limits import largest_file
from napari_unet3d import cli
from napari_unet3d.cli import signals
from napari_unet3d.cli.tasks.models import check_model_path, save_model
from napari_unet3d.cli.tasks.training import train_files
from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.io import atomic
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.unet import UNetConfig

NETWORK = UNetConfig(
    widths=(4, 8),
    strides=((1, 2, 2),),
    kernels=((1, 3, 3), (3, 3, 3)),
    padding="same",
    normalization="batch",
)
TINY = ["--device", "cpu", "--iterations", "1", "--set", "pixel_classifier=false"]
TINY += ["--set", "patch_shape=[8,24,24]", "--preset", "fast"]


@pytest.fixture
def bundle():
    return random_bundle(NETWORK)


@pytest.fixture
def refuge(tmp_path, monkeypatch):
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def same_weights(path, bundle) -> bool:
    found = ModelBundle.load(path).weights
    return all((t == found[n]).all() for n, t in bundle.weights.items())


def test_a_model_whose_folder_is_gone_is_saved_elsewhere(tmp_path, bundle, refuge):
    (refuge / "m.unet3d").write_text("precious")
    for count in (1, 2):
        with pytest.raises(RunFailedError, match=r"There is no folder.*was saved as"):
            save_model(bundle, tmp_path / "gone" / "m.unet3d")
        assert len(list(refuge.iterdir())) == 1 + count
    assert (refuge / "m.unet3d").read_text() == "precious"
    copies = [p for p in refuge.iterdir() if p.name != "m.unet3d"]
    assert all(p.suffix == ".unet3d" and p.name.startswith("m-") for p in copies)
    assert all(same_weights(p, bundle) for p in copies)


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode here")
def test_a_name_that_is_no_unicode_loses_nothing(tmp_path, bundle, refuge):
    path = tmp_path / "gone" / os.fsdecode(b"m\xff.unet3d")
    with pytest.raises(RunFailedError, match="was saved as"):
        save_model(bundle, path)
    (copy,) = refuge.iterdir()
    assert same_weights(copy, bundle)
    path.parent.mkdir()
    with pytest.raises(BadInputError, match="not valid Unicode"):
        check_model_path(path)


def test_a_folder_that_goes_during_the_training_loses_nothing(tmp_path, bundle, refuge):
    folder = tmp_path / "folder"
    folder.mkdir()
    place = atomic.Replacement(folder / "m.unet3d")
    shutil.rmtree(folder)
    folder.write_text("a file")  # removing the temporary file fails, too
    with pytest.raises(RunFailedError, match=r"m\.unet3d could not be written.*was saved as"):
        save_model(bundle, place)
    (copy,) = refuge.iterdir()
    assert same_weights(copy, bundle)


def test_an_unexpected_error_loses_nothing(tmp_path, bundle, refuge, monkeypatch):
    save = ModelBundle.save

    def fails_once(self, path):
        monkeypatch.setattr(ModelBundle, "save", save)
        raise MemoryError

    monkeypatch.setattr(ModelBundle, "save", fails_once)
    with pytest.raises(RunFailedError, match=r"MemoryError.*was saved as"):
        save_model(bundle, tmp_path / "m.unet3d")
    (copy,) = refuge.iterdir()
    assert same_weights(copy, bundle)


def test_where_nothing_can_be_written_the_first_reason_is_told(tmp_path, bundle, refuge):
    path = tmp_path / "m.unet3d"
    with (
        largest_file(2000),
        pytest.raises(RunFailedError, match=r"m\.unet3d could not be written.*it is lost"),
    ):
        save_model(bundle, path)
    assert not path.exists()
    assert not list(refuge.iterdir())


def test_a_file_that_appears_during_the_training_stays(tmp_path, bundle, refuge):
    path = tmp_path / "m.unet3d"
    place = atomic.Replacement(path)
    path.write_text("precious")
    with pytest.raises(RunFailedError, match=r"another name: .*m-1\.unet3d"):
        save_model(bundle, place)
    assert path.read_text() == "precious"
    assert same_weights(tmp_path / "m-1.unet3d", bundle)
    assert not list(refuge.iterdir()), "one copy is enough"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_waits_until_the_model_is_saved(tmp_path, bundle, monkeypatch, capfd, name):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"no {name} here")
    before, sync = signal.getsignal(number), atomic._sync_all

    def interrupted(path):
        assert path.stat().st_size > 1000, "not in the middle of saving"
        signal.raise_signal(number)
        sync(path)

    monkeypatch.setattr(atomic, "_sync_all", interrupted)
    save_model(bundle, tmp_path / "m.unet3d")
    assert same_weights(tmp_path / "m.unet3d", bundle)
    assert "is being saved" in capfd.readouterr().err
    assert signal.getsignal(number) is before


def test_a_second_interrupt_drops_the_model_and_keeps_the_older_one(
    tmp_path, bundle, monkeypatch, refuge
):
    path = tmp_path / "m.unet3d"
    path.write_text("older")

    def interrupted(_path):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(atomic, "_sync_all", interrupted)
    monkeypatch.setattr(signals, "_ECHO_SECONDS", -1)  # the second one comes at once
    with pytest.raises(KeyboardInterrupt):
        save_model(bundle, path)
    assert path.read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["m.unet3d", "temporary"]
    assert not list(refuge.iterdir())


def test_a_model_can_be_saved_in_any_thread(tmp_path, bundle):
    """Handlers of signals can be set in the main thread only."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(save_model, bundle, tmp_path / "m.unet3d").result()
    assert same_weights(tmp_path / "m.unet3d", bundle)


# --- what is known before the training -------------------------------------------------------


@pytest.fixture
def train(tmp_path, capsys):
    """`train` for one iteration on a tiny stack in `tmp_path`: exit code and screen."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (10, 32, 36)).astype(np.uint8)
    labels = np.zeros_like(image)
    labels[4], labels[7] = 1 + (image[4] > 100), 1 + (image[7] > 100)
    tifffile.imwrite(tmp_path / "image.tif", image)
    tifffile.imwrite(tmp_path / "labels.tif", labels)

    def call(output, *more) -> tuple[int, str]:
        arguments = ["train", tmp_path / "image.tif", tmp_path / "labels.tif", "-o", output]
        code = cli.run([str(a) for a in [*arguments, *TINY, *more]], lambda **_: None)
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return call


@pytest.mark.parametrize("length", [247, 255])
def test_a_long_name_is_kept(train, tmp_path, length):
    path = tmp_path / ("m" * (length - len(".unet3d")) + ".unet3d")
    code, text = train(path)
    assert code == 0, text
    assert ModelBundle.load(path).record.iterations == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_a_name_that_is_too_long_is_told_before(train, tmp_path):
    code, text = train(tmp_path / ("m" * 249 + ".unet3d"))
    assert code == 2
    assert "256 bytes" in text
    assert "loss" not in text, "trained for nothing"


def test_an_older_model_is_replaced_only_when_told(train, tmp_path):
    path = tmp_path / "m.unet3d"
    assert train(path)[0] == 0
    before = path.read_bytes()
    for more in ([], ["--from", path]):
        code, text = train(path, *more)
        assert code == 2
        assert "--overwrite" in text
        assert path.read_bytes() == before
    assert train(path, "--overwrite", "--seed", "1")[0] == 0
    assert path.read_bytes() != before
    code, text = train(path, "--resume", path, "--iterations", "2", "--seed", "1")
    assert code == 0, text  # to go on with a model is to replace it
    assert ModelBundle.load(path).record.iterations == 2


def test_a_limit_on_files_is_told_before(train, tmp_path):
    with largest_file(2000):
        code, text = train(tmp_path / "m.unet3d")
    assert code == 2
    assert "ulimit -f" in text
    assert "loss" not in text, "trained for nothing"


def test_a_model_does_not_replace_the_image(tmp_path):
    image = tmp_path / "image.unet3d"
    image.write_text("precious")
    with pytest.raises(BadInputError, match="is an input"):
        train_files(image, tmp_path / "labels.tif", image, TrainingConfig(), overwrite=True)
    assert image.read_text() == "precious"
