"""What the repository promises as a whole: its manifest, its entry points, its commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "napari_unet3d"
QT_AND_NAPARI = ("PyQt6", "PySide6", "magicgui", "napari", "pyqtgraph", "qtpy", "superqt", "vispy")


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statement`."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in result.stdout.split()}


def test_package_loads_nothing_heavy() -> None:
    loaded = loaded_after("import napari_unet3d")
    assert "napari_unet3d" in loaded
    assert not loaded & {*QT_AND_NAPARI, "torch", "skimage", "zarr"}


def test_core_loads_neither_qt_nor_napari() -> None:
    files = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")]
    modules = [".".join(file.parts).removesuffix(".__init__") for file in files]
    core = [m for m in modules if not m.startswith("napari_unet3d.widgets")]
    assert {"napari_unet3d.cli", "napari_unet3d.training.trainer"} < set(core) < set(modules)
    assert not loaded_after("import " + ", ".join(core)) & set(QT_AND_NAPARI)


def test_no_module_is_longer_than_one_reads_in_a_sitting() -> None:
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert len(lengths) > 100
    assert not {name: length for name, length in lengths.items() if length > 400}


def test_data_is_read_without_torch() -> None:
    files = [path.relative_to(PACKAGE.parent) for path in (PACKAGE / "data").rglob("*.py")]
    modules = [".".join(f.with_suffix("").parts).removesuffix(".__init__") for f in files]
    assert {"napari_unet3d.data.ledger", "napari_unet3d.data.io.outputs"} < set(modules)
    loaded = loaded_after("import " + ", ".join(modules))
    assert "numpy" in loaded
    assert "torch" not in loaded


def test_every_public_name_of_the_package_can_be_imported() -> None:
    import napari_unet3d

    for name in napari_unet3d.__all__:
        assert getattr(napari_unet3d, name) is not None, name
        assert name in dir(napari_unet3d), name


def test_manifest_in_the_root_is_the_packaged_one() -> None:
    link = ROOT / "napari.yaml"
    text = link.read_text(encoding="utf-8")
    if text.strip() == "src/napari_unet3d/napari.yaml":
        return  # Windows checks a symbolic link out as a file that holds its target
    assert text == (PACKAGE / "napari.yaml").read_text(encoding="utf-8")


def test_installed_package_offers_the_manifest() -> None:
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_distribution("napari-unet3d")
    assert manifest.name == manifest.display_name == "napari-unet3d"
    contributions = manifest.contributions
    commands = {command.id for command in contributions.commands}
    assert {sample.key for sample in contributions.sample_data} == {
        "first_steps",
        "tubules",
        "nuclei",
    }
    assert {sample.command for sample in contributions.sample_data} <= commands
    menus = contributions.menus
    assert set(menus) == {"napari/layers/segment", "napari/layers/annotate"}
    (widget,) = contributions.widgets
    assert all([item.command for item in items] == [widget.command] for items in menus.values())


def test_dependencies_bring_no_qt_binding() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {re.split(r"[\[<>=!~; ]", line)[0].lower() for line in project["dependencies"]}
    assert not core & {"napari", "pyqt5", "pyqt6", "pyside2", "pyside6"}
    assert any("napari[pyqt6]" in line for line in project["optional-dependencies"]["all"])
    assert any(line == "torch>=2.5,!=2.9.*" for line in project["dependencies"])


def test_ci_calls_the_readme_s_test_command_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.strip() and not line.startswith("#")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    in_readme = {line.strip() for line in readme.splitlines()}
    assert commands == ["python3 run.py test"]
    assert set(commands) <= in_readme
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert "run: python3 run.py test\n" in workflow


def test_the_wait_of_threads_is_set_before_torch_is_loaded_and_the_users_wins():
    code = (
        "import os, sys, napari_unet3d; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    for given, expected in (({}, "20000 False"), ({"GOMP_SPINCOUNT": "7"}, "7 False")):
        environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | given
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert result.stdout.strip() == expected
