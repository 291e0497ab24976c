"""Where no window can be opened, the cure is said."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets import launch


def test_without_a_display_qt_is_not_even_started(monkeypatch: Any) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(BadInputError, match=r"no display.* command line"):
        launch.launch()
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    launch.check_window()
    monkeypatch.delenv("QT_QPA_PLATFORM")
    monkeypatch.setattr(sys, "platform", "darwin")
    launch.check_window()


@pytest.mark.parametrize(
    ("there", "missing"), [(("PyQt6",), "napari"), (("napari",), "Qt binding"), ((), "and a Qt")]
)
def test_what_is_not_installed_is_named_with_the_command(
    monkeypatch: Any, there: tuple[str, ...], missing: str
) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: name in there or None)
    with pytest.raises(BadInputError, match=missing) as error:
        launch.check_window()
    assert isinstance(error.value, ImportError)  # whoever can do without a window catches that
    assert 'pip install "napari-unet3d[all]"' in str(error.value)
