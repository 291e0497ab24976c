"""Write the pages that follow from the package itself.

docs/reference.md has the public names, the command line and the settings; docs/modules.md has a
line for each module.

python docs/make_reference.py            write them
python docs/make_reference.py --check    exit with 1 when one is stale
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel

import napari_unet3d
from napari_unet3d import cli, config
from napari_unet3d.networks import NETWORKS

TARGET = Path(__file__).with_name("reference.md")
MODULES = Path(__file__).with_name("modules.md")
PACKAGE = Path(napari_unet3d.__file__).parent
FOLDERS = (
    "",
    "widgets",
    "widgets/features",
    "widgets/run",
    "widgets/viewer",
    "widgets/parts",
    "cli",
    "cli/tasks",
    "exchange",
    "reproduction",
    "session",
    "session/report",
    "training",
    "prediction",
    "objects",
    "sampling",
    "model",
    "pixels",
    "networks",
    "data",
    "data/editing",
    "data/io",
)
"""From what a person sees down to what all others use."""
GROUPS = {
    "Image and annotation": [
        "Volume",
        "SparseAnnotation",
        "SliceRef",
        "read_volume",
        "read_labels",
    ],
    "Training": ["Trainer", "TrainingControl", "SlicePaint"],
    "Model": ["ModelBundle", "UNet3D"],
    "Prediction": ["predict"],
    "Objects": ["find_objects"],
    "A piece of work": ["Session", "NamedModel", "SessionFolder", "make_report", "write_report"],
    "Sample": ["tubules"],
    "Errors": ["BadInputError", "RunFailedError"],
}
EVENTS = {
    "napari_unet3d.events": (
        "TrainingStarted",
        "Forecast",
        "PixelsStarted",
        "TrainingProgress",
        "FinishingStarted",
        "Checkpoint",
        "HeldOutScores",
        "SlicePreview",
        "SlicesJoined",
        "RoundStarted",
        "RoundFinished",
        "PredictionProgress",
        "PredictionStarted",
        "SlicesSummarized",
        "ObjectsProgress",
        "Notice",
    ),
}
TRIPLE = tuple[int, int, int]


def make() -> str:
    """The whole page."""
    parts = [
        "# Reference",
        "<!-- Written by docs/make_reference.py: edit the docstrings, then run it. -->",
        "Arrays are ZYX: axis 0, 1, 2 is z, y, x, and shapes are in voxels unless they say "
        "otherwise. Label values of an annotation: 0 unlabelled, 1 background, 2… classes; of a "
        "prediction: 0 background, classes keep their numbers.",
        "- [Command line](#command-line)\n- [Python](#python)\n- [Settings](#settings)",
        *_command_line(),
        *_python(),
        *_settings(),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


# --- the modules ----------------------------------------------------------------------------


def make_modules() -> str:
    """The page of modules: the first paragraph of each docstring."""
    folders = {p.parent.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py")}
    if missing := {f if f != "." else "" for f in folders} - set(FOLDERS):
        raise SystemExit(f"docs/make_reference.py does not know the folders {sorted(missing)}")
    parts = [
        "# Modules",
        "<!-- Written by docs/make_reference.py: edit the docstrings, then run it. -->",
        "From what a person sees down to what all others use. [Architecture](architecture.md) says "
        "how they work together.",
    ]
    for folder in FOLDERS:
        parts.append(f"## {folder or 'napari_unet3d'}")
        modules = sorted((PACKAGE / folder).glob("*.py"))
        rows = [(f"`{m.name}`", _first_paragraph(m)) for m in modules if m.stem != "__init__"]
        parts += [_first_paragraph(PACKAGE / folder / "__init__.py"), _table(("", ""), rows)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _first_paragraph(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return _prose(text.partition("\n\n")[0])


# --- the command line -----------------------------------------------------------------------


def _command_line() -> Iterator[str]:
    yield "## Command line"
    group: Any = typer.main.get_command(cli.app)
    yield _help(group.help)
    yield (
        "Exit codes: 0 done; 1 it failed, with the reason; 2 bad input, with the cure. Without a "
        "terminal, progress is written as plain lines to stderr."
    )
    sessions: Any = typer.main.get_command(cli.sessions.app)
    named = [*group.commands.items()]
    named += [(f"{name} SESSION", command) for name, command in sessions.commands.items()]
    for title, command in named:
        name = title.partition(" ")[0]
        yield f"### napari-unet3d {title}"
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        words = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
        words += [f"{_flag(p)} {p.name.upper()}" for p in options if p.required]
        yield f"```\nnapari-unet3d {name} {' '.join([*words, '[OPTIONS]'])}\n```"
        yield _help(command.help)
        rows = [(f"`{p.name.upper()}`", _prose(p.help), "") for p in arguments]
        for p in options:
            names = ", ".join(f"`{o}`" for o in (*p.opts, *p.secondary_opts))
            rows.append((names, _prose(p.help), _default(p)))
        yield _table(("", "Meaning", "Default"), rows)


def _flag(option: Any) -> str:
    return str(min(option.opts, key=len))


def _default(option: Any) -> str:
    value = option.default
    if option.required:
        return "required"
    if isinstance(value, Enum):
        # click >= 8.3 marks "no default" by a member of an Enum of its own.
        value = value.value if isinstance(value.value, str | int | float) else None
    return "" if value is None or value is False or callable(value) else f"`{value}`"


def _prose(text: str | None) -> str:
    return (text or "").replace("*", "\\*")


def _help(text: str | None) -> str:
    """Help of a command; what is indented there becomes one block."""
    text = inspect.cleandoc(text or "")
    blocks = re.split(r"\n\s*\n", text)
    out: list[str] = []
    for block in blocks:
        if not block.startswith("    "):
            out.append(block)
        elif out and out[-1].startswith("```"):
            out[-1] = out[-1].removesuffix("```") + textwrap.dedent(block) + "\n```"
        else:
            out.append(f"```\n{textwrap.dedent(block)}\n```")
    return "\n\n".join(out)


# --- Python ---------------------------------------------------------------------------------


def _python() -> Iterator[str]:
    yield "## Python"
    yield (
        "`import napari_unet3d` loads neither Qt nor napari, and PyTorch only when it is needed. "
        "[Use it from Python](how-to/python.md) shows these names at work."
    )
    configs = [n for n in napari_unet3d.__all__ if n.endswith("Config") or n == "ClassInfo"]
    grouped = {name for names in GROUPS.values() for name in names}
    missing = set(napari_unet3d.__all__) - {*configs} - grouped
    for title, names in (GROUPS | ({"More": sorted(missing)} if missing else {})).items():
        yield f"### {title}"
        for name in names:
            yield from _object(name, getattr(napari_unet3d, name), level=4)
    yield "### Events"
    yield "What the generators of `Trainer.run` and `predict` yield."
    for module, names in EVENTS.items():
        yield f"From `{module}`:"
        for name in names:
            found = getattr(sys.modules[module], name)
            fields = [f"`{f.name}`" for f in dataclasses.fields(found)]
            fields += [f"`{n}`" for n, m in vars(found).items() if isinstance(m, property)]
            yield f"#### {name}"
            yield f"Fields: {', '.join(fields)}."
            yield _numpydoc(found.__doc__)


def _object(name: str, found: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}"
    if inspect.isclass(found) and issubclass(found, Exception):
        yield f"Subclass of `{found.__mro__[1].__name__}`."
    elif not (inspect.isclass(found) and issubclass(found, BaseModel)):
        yield f"```\n{_signature(name, found)}\n```"
    yield _numpydoc(found.__doc__)
    if not inspect.isclass(found) or issubclass(found, Exception):
        return
    for member, value in _members(found).items():
        if member.startswith("_") or member in ("forward", "model_config"):
            continue
        if isinstance(value, property) and value.fget is not None and value.fget.__doc__:
            yield f"**`{name}.{member}`**: {_one_line(value.fget.__doc__)}"
        elif isinstance(value, classmethod | staticmethod) or inspect.isfunction(value):
            function: Callable[..., Any] = getattr(found, member)
            if function.__doc__:
                yield f"{'#' * (level + 1)} {name}.{member}"
                yield f"```\n{_signature(f'{name}.{member}', function)}\n```"
                yield _numpydoc(function.__doc__)


def _members(found: type) -> dict[str, Any]:
    """What a class defines itself or inherits from an ordinary class of the package."""
    members: dict[str, Any] = {}
    for base in found.__mro__:
        own = base is found or (
            base.__module__.startswith("napari_unet3d") and not inspect.isabstract(base)
        )
        members |= {k: v for k, v in vars(base).items() if own and k not in members}
    return members


def _signature(name: str, found: Callable[..., Any]) -> str:
    """Names and defaults; the docstring has the types in words."""
    shown = []
    star = False
    for p in inspect.signature(found).parameters.values():
        if p.name == "self":
            continue
        if p.kind is p.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        default = "" if p.default is p.empty else f"={_plain(p.default)}"
        shown.append(p.name + default)
    return f"{name}({', '.join(shown)})"


def _plain(value: Any) -> str:
    if isinstance(value, frozenset) or "factory" in repr(value):
        return "frozenset()"
    return repr(value)


def _numpydoc(text: str | None) -> str:
    """A numpydoc docstring as Markdown."""
    lines = inspect.cleandoc(text or "").splitlines()
    out: list[str] = []
    i = 0
    while i < len(lines):
        if i + 1 < len(lines) and lines[i] and set(lines[i + 1]) == {"-"}:
            out += ["", f"*{lines[i]}*", ""]
            i += 2
            while i < len(lines) and not (i + 1 < len(lines) and set(lines[i + 1] or "x") == {"-"}):
                line = lines[i]
                if line and not line.startswith(" "):
                    end = i + 1
                    while end < len(lines) and (lines[end].startswith(" ") or not lines[end]):
                        end += 1
                    names = ", ".join(f"`{n.strip()}`" for n in _names(line))
                    body = " ".join(x.strip() for x in lines[i + 1 : end] if x.strip())
                    out.append(f"- {names}: {_marks(body)}" if body else f"- {names}")
                    i = end
                else:
                    i += 1
            continue
        out.append(_marks(lines[i]))
        i += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


def _names(line: str) -> list[str]:
    return line.split(",") if re.fullmatch(r"[\w, ]+", line) else [line]


def _marks(text: str) -> str:
    """Double backticks to single ones; sections of prose stay as they are."""
    return text.replace("``", "`")


def _one_line(text: str) -> str:
    return _marks(" ".join(inspect.cleandoc(text).split()))


# --- settings -------------------------------------------------------------------------------


def _settings() -> Iterator[str]:
    yield "## Settings"
    yield (
        "Every setting is defined once, in `config.py` or beside its network; the form "
        "of the dock, the command line's `--set NAME=VALUE`, Python and the saved model all read "
        "it there. A value outside of its bounds is refused before anything starts."
    )
    defined = [c for c in vars(config).values() if getattr(c, "__module__", "") == config.__name__]
    for model in (*defined, *NETWORKS):
        if not (inspect.isclass(model) and issubclass(model, BaseModel)):
            continue
        if model.__name__.startswith("_"):
            continue
        yield f"### {model.__name__}"
        yield _numpydoc(model.__doc__)
        schema = model.model_json_schema()["properties"]
        rows = [
            (
                f"`{field}`",
                _type(info.annotation),
                "required" if info.is_required() else _setting_default(info),
                _bounds(schema[field]),
                info.description or "",
            )
            for field, info in model.model_fields.items()
        ]
        yield _table(("Name", "Type", "Default", "Bounds", "Meaning"), rows)
    yield "### NetworkConfig"
    kinds = " or ".join(f"[{n.__name__}](#{n.__name__.lower()})" for n in NETWORKS)
    yield f"The configuration of any network, told apart by `kind`: {kinds}."


def _setting_default(info: Any) -> str:
    if info.default_factory is not None:
        return "its defaults"
    return "empty" if info.default in (None, "") else f"`{info.default}`"


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation == TRIPLE:
        return "three integers (z, y, x)"
    if origin is Literal:
        return "one of " + ", ".join(f"`{a}`" for a in arguments)
    if type(None) in arguments:
        inner = [a for a in arguments if a is not type(None)]
        return " or ".join(_type(a) for a in inner) + ", or empty"
    if origin is tuple:
        return "list" if Ellipsis in arguments else f"{len(arguments)} values"
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0])
    words = {int: "integer", float: "number", str: "text", bool: "true or false"}
    if annotation in words:
        return words[annotation]
    return f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def _bounds(schema: dict[str, Any]) -> str:
    """Bounds of a number or a text, as its JSON schema has them."""
    options = schema.get("anyOf", [schema])
    found = next((o for o in options if o.get("type") != "null"), {})
    words = []
    for key, sign in (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    ):
        if key in found:
            words.append(f"{sign} {found[key]:,}".replace(",", " "))
    if found.get("type") == "string" and "maxLength" in found:
        words.append(f"{found.get('minLength', 0)} to {found['maxLength']} characters")
    if found.get("type") == "array" and found.get("minItems") != found.get("maxItems"):
        words.append(f"{found.get('minItems', 0)} to {found.get('maxItems', '…')} items")
    if "pattern" in found:
        words.append(f"`{found['pattern']}`")
    return ", ".join(words)


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = [_one_line(c or "").replace("|", "\\|") for c in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Write the pages, or check them."""
    pages = {TARGET: make(), MODULES: make_modules()}
    if sys.argv[1:] == ["--check"]:
        stale = [
            page
            for page, text in pages.items()
            if not page.is_file() or page.read_text(encoding="utf-8") != text
        ]
        for page in stale:
            print(f"{page} is stale: run  python docs/make_reference.py")
        return int(bool(stale))
    if sys.argv[1:]:
        print(inspect.cleandoc(__doc__ or ""))
        return 2
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
