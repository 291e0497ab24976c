#!/usr/bin/env python3
"""Run the demo or the tests of napari-unet3d; each command does all of its own set-up.

    python3 run.py demo [arguments of `napari-unet3d demo`]
    python3 run.py test [arguments of pytest]

The first run makes a virtual environment in .venv and installs the package into it. On Debian and
Ubuntu it also installs the system libraries that Qt needs, where that takes no password. Later
runs skip what is done already and need no network.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "installed"  # the fingerprint of what .venv holds, or UNFINISHED
UNFINISHED = "unfinished"
CONSTRAINTS = ROOT / "constraints-cpu.txt"
DISK_GIB = 3  # with the CPU build of PyTorch; the CUDA build takes 9
WORKERS = 4  # processes of pytest: no more, since each takes up to 2 GiB of memory

# What Qt and OpenGL load on Linux, and the Debian package of each.
LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-shape.so.0": "libxcb-shape0",
}
# What gives the tests a screen on a machine without one.
PROGRAMS = {"Xvfb": "xvfb", "xauth": "xauth"}

# Words in the output of pip, and what to do about each.
CURES = {
    "No space left": "The disk is full: make room, then run this again.",
    "found for torch": "PyTorch has no build for this system and Python: use Python 3.11, 3.12 or "
    "3.13 on 64-bit Linux, Windows, or macOS on Apple silicon.",
    "onnection": "The network does not answer: check it (behind a proxy: the variable HTTPS_PROXY "
    "and `pip config set global.cert FILE`), then run this again. What is downloaded is kept.",
    "": "Run this again; if it fails again, delete the folder .venv first.",
}


class SetupError(Exception):
    """Set-up cannot go on; the message names the cure."""


def say(text):
    """Print a line at once, so that it stands before the output of the next process."""
    print(text, flush=True)


def clean_environment():
    """Return the environment without the variables that lead Python or pip out of .venv."""
    drop = {"PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_TARGET", "PIP_USER"}
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    return {**kept, "PYTHONNOUSERSITE": "1"}


def run(command, show=lambda line: None):
    """Run `command`, give each line of its output to `show`; return the status and all lines."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        process = subprocess.Popen(
            command, cwd=str(ROOT), env=clean_environment(), text=True, errors="replace", **pipes
        )
    except OSError as error:
        return 1, [str(error)]
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        show(line.strip())
    return process.wait(), lines


def can_run(code):
    """Whether the Python of .venv runs `code` without an error."""
    return run([str(PYTHON), "-c", code])[0] == 0


def prepare(extras):
    """Make .venv hold the package with `extras`, where it does not yet."""
    stamp = STAMP.read_text("utf-8") if STAMP.exists() else ""
    usable = stamp != UNFINISHED and can_run("import pip")
    if usable and stamp in {fingerprint(extras), fingerprint("all,test")}:
        return
    say("\n== set-up")
    if not usable:
        make_venv()
        stamp = ""
    STAMP.write_text(UNFINISHED, "utf-8")
    status, lines = install(extras)
    STAMP.write_text(stamp if status else fingerprint(extras), "utf-8")
    if status:
        raise SetupError(explain(lines))


def fingerprint(extras):
    """Return a hash of all that decides what .venv holds."""
    texts = str(ROOT), extras, (ROOT / "pyproject.toml").read_text("utf-8")
    return hashlib.sha256("\n".join([*texts, CONSTRAINTS.read_text("utf-8")]).encode()).hexdigest()


def make_venv():
    """Make .venv afresh."""
    free = shutil.disk_usage(str(ROOT)).free / 2**30
    if free < DISK_GIB:
        raise SetupError(
            f"{free:.1f} GiB are free on the disk of {ROOT}. The installation needs {DISK_GIB}, or "
            "9 with the CUDA build of PyTorch: make room and run this again."
        )
    if VENV.exists() and not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
        raise SetupError(f"{VENV} is no virtual environment: move it away and run this again.")
    say(f"   making a virtual environment with {sys.executable} ...")
    status, lines = run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    if status:
        raise SetupError(
            "\n".join(lines) + "\n\nMaking a virtual environment failed. On Debian and Ubuntu, "
            "`sudo apt-get install python3-venv` is the usual cure."
        )


def install(extras):
    """Install the package and what it depends on; return the exit status and the output of pip."""
    arguments = ["install", "-c", CONSTRAINTS.name, "-e", f".[{extras}]"]
    say("   pip {} ...".format(" ".join(arguments)))
    start = time.monotonic()

    def show(line):
        if line.startswith("Installing") or (line.startswith("Downloading") and " MB" in line):
            say(f"   {time.monotonic() - start:4.0f} s  {line[:90]}")

    options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    return run([str(PYTHON), "-m", "pip", *arguments, *options], show)


def explain(lines):
    """Return the last lines of pip's output and what to do about them."""
    text = "\n".join(lines)
    cure = next(cure for sign, cure in CURES.items() if sign in text)
    return "\n".join(["pip failed:", *("   | " + line for line in lines[-15:]), "", cure])


def missing_packages(with_screen):
    """Return the Debian packages of missing libraries and, for tests, of missing programs."""
    missing = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    if with_screen:
        missing += [package for name, package in PROGRAMS.items() if not shutil.which(name)]
    return missing


def install_system_libraries(with_screen):
    """Install what Qt lacks, or say how; the rest goes on without what needs a window."""
    missing = missing_packages(with_screen) if sys.platform.startswith("linux") else []
    if not missing:
        return
    say("\n== system libraries: {} ...".format(" ".join(missing)))
    apt = "apt-get install -y --no-install-recommends " + " ".join(missing)
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]  # -n: fail instead of asking for a password
    status, lines = run(
        [*sudo, "sh", "-c", "apt-get update && DEBIAN_FRONTEND=noninteractive " + apt]
    )
    if status:
        say("\n".join("   | " + line for line in lines[-5:]))
        say("   Qt lacks these libraries. On Debian and Ubuntu, this installs them:")
        say("      sudo apt-get update && sudo " + apt)


def demo(arguments):
    """Train on the sample and segment it; opens napari with the result where there is a screen."""
    if "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ:
        install_system_libraries(with_screen=False)
    prepare("all")
    say("\n== napari-unet3d demo")
    command = [str(PYTHON), "-m", "napari_unet3d", "demo", *arguments]
    return subprocess.call(command, env=clean_environment())


def test(arguments):
    """Run every check, then say which passed."""
    install_system_libraries(with_screen=True)
    prepare("all,test")
    validate = ["npe2", "validate", "napari-unet3d"]
    pytest = ["pytest", "-n", "logical", f"--maxprocesses={WORKERS}", "--dist", "worksteal"]
    if can_run("import PyQt6.QtWidgets, PyQt6.QtOpenGLWidgets"):
        validate.append("--imports")
    else:
        say("\nQt cannot be loaded (see above): the tests of the window are left out")
        pytest += ["-p", "no:pytest-qt"]
    layers = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    checks = {
        "ruff check": ["-m", "ruff", "check"],
        "ruff format": ["-m", "ruff", "format", "--check"],
        "mypy": ["-m", "mypy"],
        "lint-imports": ["-c", layers, "--no-logo"],
        "npe2 validate": ["-m", *validate],
        "pytest": ["-m", *pytest, *arguments],
    }
    # Two processes that share a core wait for each other's threads.
    environment = {"OMP_NUM_THREADS": "1", **clean_environment()}
    summary = []
    for name, command in checks.items():
        say(f"\n== {name}")
        start = time.monotonic()
        status = subprocess.call([str(PYTHON), *command], cwd=str(ROOT), env=environment)
        word = "FAIL" if status else "ok"
        summary.append(f"   {word:4}  {name:14} {time.monotonic() - start:7.1f} s")
    say("\n".join(["\n== summary", *summary]))
    return int(any("FAIL" in line for line in summary))


def reject_old_python(version):
    """Say which Python is needed, where `version` is older or the interpreter is 32-bit."""
    if tuple(version[:2]) >= (3, 11) and sys.maxsize > 2**32:
        return
    newer = next(filter(shutil.which, ("python3.13", "python3.12", "python3.11")), None)
    cure = f"run `{newer} run.py`" if newer else "install one (python.org) and run this again"
    this = "{}.{}".format(*version)
    raise SetupError(f"napari-unet3d needs a 64-bit Python 3.11 or newer, this is {this}: {cure}.")


def main():
    """Read the command line and run the command."""
    commands = {"demo": demo, "test": test}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        say(__doc__.strip())
        return 0 if {"-h", "--help"} & set(sys.argv[1:]) else 2
    try:
        reject_old_python(sys.version_info)
        return commands[sys.argv[1]](sys.argv[2:])
    except SetupError as error:
        say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        say("\nstopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
