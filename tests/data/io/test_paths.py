"""What users write as a path, however odd, becomes a path or words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from napari_unet3d.data.io.paths import user_path
from napari_unet3d.errors import BadInputError


def test_home_is_found() -> None:
    assert user_path("~/stack.tif") == Path.home() / "stack.tif"


def test_what_is_not_there_is_a_path_all_the_same(tmp_path) -> None:
    assert user_path(tmp_path / "no" / "thing.tif") == tmp_path / "no" / "thing.tif"
    (tmp_path / "file").touch()
    assert user_path(tmp_path / "file" / "thing.tif") == tmp_path / "file" / "thing.tif"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("~nosuchuser/x.tif", "nosuchuser"),
        ("a" * 300, "300 bytes"),
        ("a\0b", "no path"),
        ("", "''"),
    ],
)
def test_what_can_be_no_path_is_refused(text, words) -> None:
    with pytest.raises(BadInputError, match=words):
        user_path(text)


def test_a_file_may_be_called_as_a_home_folder_would_be(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~nosuchuser.tif").touch()
    assert user_path("~nosuchuser.tif").samefile(tmp_path / "~nosuchuser.tif")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_in_a_circle(tmp_path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(BadInputError, match="leads back"):
        user_path(tmp_path / "a")
