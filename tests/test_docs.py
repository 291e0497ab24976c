"""The documentation is true: links lead somewhere, snippets run, the reference is current."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGE = ROOT / "src" / "napari_unet3d"

SNIPPETS = [p for p in PAGES if p.name != "extending.md" and "```python" in p.read_text("utf-8")]
"""Pages with Python; tests/test_extending.py runs that of extending.md."""

# The pages show what a user would write; here a small stack and two iterations do.
SMALLER = {
    "unet.tubules()": "unet.tubules((16, 48, 48))",
    "seconds=60": "iterations=2, preset='fast'",
    'device="auto"': 'device="cpu"',
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page with exactly this language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for tag, text in found if tag == language]


def prose(page: Path) -> str:
    """A page without its fenced blocks and comments."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"<!--.*?-->", "", text, flags=re.S)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.M)
    words = [re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings]
    return {word.replace(" ", "-") for word in words}


def make_reference() -> ModuleType:
    path = ROOT / "docs" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands() -> dict[str, list[Any]]:
    """The parameters of each command, with files and with a session."""
    import typer

    from napari_unet3d import cli

    found: dict[str, list[Any]] = {}
    for app in (cli.app, cli.sessions.app):
        group: Any = typer.main.get_command(app)
        for name, command in group.commands.items():
            found.setdefault(name, []).extend(command.params)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_images_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file), f"{name_of(page)} links to {target}: no such heading"


def test_every_picture_is_shown_and_every_page_can_be_reached() -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in (ROOT / "docs" / "images").glob("*.png"):
        assert f"images/{picture.name}" in shown, f"no page shows {picture.name}"
    for page in (ROOT / "docs").rglob("*.md"):
        assert f"{page.name})" in shown or f"{page.name}#" in shown, f"no link to {page.name}"


def test_reference_is_current() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_stale_reference_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = make_reference()
    monkeypatch.setattr(reference, "TARGET", tmp_path / "reference.md")
    monkeypatch.setattr(reference, "MODULES", tmp_path / "modules.md")
    monkeypatch.setattr(sys, "argv", ["make_reference.py", "--check"])
    assert reference.main() == 1
    monkeypatch.setattr(sys, "argv", ["make_reference.py"])
    assert reference.main() == 0
    monkeypatch.setattr(sys, "argv", ["make_reference.py", "--check"])
    assert reference.main() == 0
    with (tmp_path / "reference.md").open("a", encoding="utf-8") as file:
        file.write("more")
    assert reference.main() == 1


def test_reference_has_every_public_name_and_setting() -> None:
    import napari_unet3d
    from napari_unet3d import config
    from napari_unet3d.networks.unet import UNetConfig

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for name in napari_unet3d.__all__:
        assert re.search(rf"^#+ {name}$", text, re.M), f"{name} is missing"
    for model in (config.TrainingConfig, UNetConfig, config.PredictionConfig):
        for field in model.model_fields:
            assert f"| `{field}` |" in text, f"{model.__name__}.{field} is missing"


@pytest.mark.parametrize("page", SNIPPETS, ids=name_of)
def test_python_snippets_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(page, "python"))
    for shown, small in SMALLER.items():
        code = code.replace(shown, small)
    assert "seconds=" not in code, "this would train for long: make it smaller here"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        exec(compile(code, name_of(page), "exec"), {"__name__": "snippet"})
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out, "a snippet that prints nothing shows nothing"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_in_the_pages_exist(page: Path) -> None:
    text = re.sub(r"\\\n\s*", " ", "\n".join(blocks(page, "")))
    for line in re.findall(r"napari-unet3d +([a-z]+\b[^\n]*)", text):
        command, *words = line.split("#")[0].split()
        assert command in commands(), f"{name_of(page)}: napari-unet3d {line}"
        known = {"--help"} | {o for p in commands()[command] for o in p.opts}
        known |= {o for p in commands()[command] for o in p.secondary_opts}
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert options <= known, f"{name_of(page)}: napari-unet3d {line}"


def test_options_named_in_prose_exist() -> None:
    known = {o for c in commands().values() for p in c for o in (*p.opts, *p.secondary_opts)}
    scripts = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "benchmarks").glob("*.py"))
    known |= set(re.findall(r'"(--[a-z-]+)"', scripts)) | {"--check", "--help"}
    for page in (ROOT / "docs").rglob("*.md"):
        named = set(re.findall(r"`(--[a-z-]+)", prose(page)))
        assert named <= known, f"{name_of(page)}: {named - known}"


def test_architecture_page_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`([a-z_/]+/[a-z_]+\.py)`", text):
        assert (PACKAGE / path).is_file() or (ROOT / path).is_file(), f"{path} is gone"
    for name, path in re.findall(r"`(\w+)` in `([a-z_/]+\.py)`", text):
        assert re.search(rf"\b{name}\b", (PACKAGE / path).read_text(encoding="utf-8")), name
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in re.findall(
        r'^    "([a-z0-9-]+)[^"]*",?', project.split("[project.scripts]")[0], re.M
    ):
        assert name in text, f"docs/architecture.md does not say why {name} is needed"
