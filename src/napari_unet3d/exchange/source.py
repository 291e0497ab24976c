"""The source of `model.portable` and of all that it imports, as one file.

Whoever runs it needs PyTorch and pydantic, and not this program. The modules keep their names below
another package, so they do not clash with an installed one.
"""

from __future__ import annotations

import ast
import hashlib
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "napari_unet3d"
_ROOT = f"{_PACKAGE}.model.portable"
ENTRY = "make_model"
"""Name of the function that makes the module."""

_LOADER = '''"""A model of napari-unet3d {version}: network, pixel classifier and calibration.

This file needs PyTorch, NumPy and pydantic. It holds the modules of napari-unet3d that the model
consists of; `make_model` puts them together.
"""

import importlib
import importlib.abc
import importlib.util
import sys

_NAME = {name!r}
_SOURCES = {sources}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules in this file."""

    def find_spec(self, name, path=None, target=None):
        if name not in _SOURCES:
            return None
        is_package = any(other.startswith(name + ".") for other in _SOURCES)
        return importlib.util.spec_from_loader(name, self, is_package=is_package)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        exec(compile(_SOURCES[name], f"<{{name}}>", "exec"), module.__dict__)


def {entry}(**arguments):
    """Make the module; its weights are loaded afterwards."""
    if not any(type(finder).__name__ == "_Finder" and finder.__module__ == __name__
               for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
    module = importlib.import_module(_NAME + ".model.portable")
    return module.PortableModel(**arguments)
'''


def portable_source(version: str) -> str:
    """The text of the file.

    Parameters
    ----------
    version
        Version of this program, for the heading.
    """
    texts = {name: _path(name).read_text(encoding="utf-8") for name in _needed()}
    mark = hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:12]
    other = f"{_PACKAGE}_{mark}"
    # The package itself imports everything: an empty one takes its place.
    sources = {other: ""} | {
        name.replace(_PACKAGE, other, 1): text.replace(f"{_PACKAGE}.", f"{other}.").replace(
            f"from {_PACKAGE} import", f"from {other} import"
        )
        for name, text in texts.items()
    }
    lines = "\n".join(f"    {name!r}: {text!r}," for name, text in sources.items())
    return _LOADER.format(version=version, name=other, sources=f"{{\n{lines}\n}}", entry=ENTRY)


def _needed() -> list[str]:
    """Modules that the portable model imports, and the packages that they are in."""
    waiting, known = [_ROOT], set()
    while waiting:
        name = waiting.pop()
        if name in known or name == _PACKAGE:
            continue
        known.add(name)
        waiting.append(name.rpartition(".")[0])
        waiting += _imported(_path(name))
    return sorted(known)


def _imported(path: Path) -> list[str]:
    """Modules of this program that a file imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(_PACKAGE):
            continue
        below = [f"{node.module}.{alias.name}" for alias in node.names]
        modules = [name for name in below if _exists(name)]
        names += [*modules, str(node.module)] if node.module != _PACKAGE else modules
    return names


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _path(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)
