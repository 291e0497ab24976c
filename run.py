#!/usr/bin/env python3
"""Run the demo or the tests of napari-unet3d; each command does all of its own set-up.

    python3 run.py demo [arguments of `napari-unet3d demo`]
    python3 run.py test [arguments of pytest]

The first run makes a virtual environment in .venv, installs the package into it and, on Debian
and Ubuntu where it is allowed to, the system libraries that Qt needs. Later runs skip what is
done already and work without a network. Nothing but Python's standard library is needed.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MINIMUM_PYTHON = (3, 11)
KNOWN_PYTHONS = ("3.13", "3.12", "3.11")
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STATE = VENV / "run-state.json"
LOG = VENV / "install.log"
CONSTRAINTS = ROOT / "constraints-cpu.txt"
MINIMUM_GIB = 3.0
CUDA_GIB = 9.0

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
# What the tests start to have a screen.
PROGRAMS = {"Xvfb": "xvfb", "xauth": "xauth"}


class SetupError(Exception):
    """Set-up cannot go on; the message names the cure."""


def say(text):
    """Print one line at once, so that it stands before what a child process prints."""
    print(text, flush=True)


def headline(text):
    """Print a line that stands out, in bold where that is a terminal."""
    bold = sys.stdout.isatty() and os.name != "nt" and "NO_COLOR" not in os.environ
    say(f"\n\033[1m== {text}\033[0m" if bold else f"\n== {text}")


def seconds(start):
    """Time since `start`, readable."""
    return f"{time.monotonic() - start:.1f} s"


# --- Python and its virtual environment ---------------------------------------------------


def answers(python, code):
    """Whether the interpreter `python` starts and runs `code` without an error."""
    try:
        return not subprocess.call(
            [str(python), "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
        )
    except OSError:
        return False


def is_new_enough(python):
    """Whether `python` is a 64-bit interpreter of a version that the package supports."""
    return answers(
        python,
        f"import sys; sys.exit(sys.version_info < {MINIMUM_PYTHON} or sys.maxsize < 2**32)",
    )


def clean_environment():
    """Return the environment without what would lead pip or Python out of .venv."""
    drop = {
        "PYTHONHOME",
        "PYTHONPATH",
        "PIP_PREFIX",
        "PIP_TARGET",
        "PIP_USER",
        "__PYVENV_LAUNCHER__",
    }
    environment = {name: value for name, value in os.environ.items() if name not in drop}
    environment["PYTHONNOUSERSITE"] = "1"
    environment["PATH"] = os.pathsep.join([str(BIN), environment.get("PATH", os.defpath)])
    environment["VIRTUAL_ENV"] = str(VENV)
    return environment


def candidate_pythons():
    """Yield interpreters to make .venv with: the running one where known, then the PATH's."""
    running = getattr(sys, "_base_executable", None) or sys.executable
    if "{}.{}".format(*sys.version_info) in KNOWN_PYTHONS:
        yield running
    for version in KNOWN_PYTHONS:
        for folder in os.get_exec_path():
            path = shutil.which("python" + version, path=folder)
            if path and Path(path).parent != BIN:
                yield path
        if os.name == "nt":
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                yield subprocess.check_output(
                    ["py", "-" + version, "-c", "import sys; print(sys.executable)"],
                    stderr=subprocess.DEVNULL,
                    universal_newlines=True,
                ).strip()
    yield running


def find_python():
    """Return an interpreter that is new enough and can make virtual environments."""
    without_venv = None
    for python in candidate_pythons():
        if not is_new_enough(python):
            continue
        if answers(python, "import ensurepip, venv"):
            return python
        without_venv = without_venv or python
    if without_venv is None:
        wanted = ".".join(map(str, MINIMUM_PYTHON))
        raise SetupError(
            f"napari-unet3d needs a 64-bit Python {wanted} or newer; this is Python "
            f"{sys.version.split()[0]}, and\nno newer one is on the PATH. Install one (Debian and "
            "Ubuntu: apt-get install python3.11 python3.11-venv;\nWindows and macOS: the installer "
            "of python.org) and run this again."
        )
    version = subprocess.check_output(
        [without_venv, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        universal_newlines=True,
    ).strip()
    package = f"python{version}-venv"
    install_packages([package], "Python's venv module")
    if not answers(without_venv, "import ensurepip, venv"):
        raise SetupError(
            f"{without_venv} cannot make a virtual environment: its module ensurepip is missing.\n"
            f"Install it (Debian and Ubuntu: {package}), then run this again."
        )
    return without_venv


def make_venv():
    """Make .venv afresh."""
    python = find_python()
    if VENV.is_symlink() or (VENV.exists() and not VENV.is_dir()):
        raise SetupError(f"{VENV} is in the way: remove it and run this again.")
    if VENV.is_dir() and any(VENV.iterdir()):
        if not (VENV / "pyvenv.cfg").exists():
            raise SetupError(
                f"{VENV} exists and is no virtual environment: move it away and run this again."
            )
        say(f"   {VENV} is unfinished or cannot be used: it is made again")
    say(f"   making a virtual environment with {python} ...")
    start = time.monotonic()
    try:
        VENV.mkdir(exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"cannot write into {ROOT}: {error}. Clone the repository into a folder of your own."
        ) from error
    result = subprocess.run(
        [python, "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=clean_environment(),
    )
    if result.returncode or not answers(PYTHON, "import pip"):
        raise SetupError(
            f"making the virtual environment failed:\n{result.stdout.strip()}\n"
            "On Debian and Ubuntu, `sudo apt-get install python3-venv` is the usual cure."
        )
    say(f"   done in {seconds(start)}")


def read_state():
    """Return what an earlier run noted about .venv; nothing where none did."""
    try:
        state = json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(**state):
    """Note what is known about .venv."""
    STATE.write_text(json.dumps(state), encoding="utf-8")


def fingerprint():
    """Hash of what decides about the content of .venv."""
    digest = hashlib.sha256(str(ROOT).encode())
    for path in (ROOT / "pyproject.toml", CONSTRAINTS):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def prepare(extras):
    """Make .venv hold the package with `extras`; nothing to do where it does already."""
    state = read_state()
    works = answers(PYTHON, "import pip") and is_new_enough(PYTHON)
    current = state.get("fingerprint") == fingerprint()
    if works and current and set(extras) <= set(state.get("extras", ())):
        return
    headline("set-up")
    moved = state.get("root", str(ROOT)) != str(ROOT)
    if not works or moved or state.get("status") == "installing":
        check_disk()
        make_venv()
        state = {}
    install(sorted(set(extras) | set(state.get("extras", ()))))


def check_disk():
    """Refuse to begin where the disk is too full for the installation."""
    free = shutil.disk_usage(str(ROOT)).free / 2**30
    if free < MINIMUM_GIB:
        raise SetupError(
            f"{free:.1f} GiB are free on the disk of {ROOT}, the installation needs "
            f"{MINIMUM_GIB:.0f}: make room and run this again."
        )
    if free < CUDA_GIB and sys.platform.startswith("linux"):
        say(
            f"   note: {free:.1f} GiB are free on this disk; where pip picks the CUDA build of "
            f"PyTorch, it needs {CUDA_GIB:.0f}"
        )
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 2**30
    if free < 1:
        say(
            f"   note: {free:.1f} GiB are free in {folder}, where pip unpacks; set TMPDIR to a "
            "folder with more room if the installation fails"
        )


# --- pip -----------------------------------------------------------------------------------


def install(extras):
    """Install the package and its dependencies into .venv."""
    target = ".[{}]".format(",".join(extras))
    arguments = ["install", "-c", CONSTRAINTS.name, "-e", target]
    say("   pip {} ...".format(" ".join(arguments)))
    start = time.monotonic()
    write_state(status="installing", root=str(ROOT))
    options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    with LOG.open("w", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            [str(PYTHON), "-m", "pip", *arguments, *options],
            cwd=str(ROOT),
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            encoding="utf-8",
            errors="replace",
        )
        for line in process.stdout:
            log.write(line)
            show_progress(line.strip(), start)
        process.wait()
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    if process.returncode:
        write_state(status="failed", root=str(ROOT))
        raise SetupError(pip_failure(LOG.read_text(encoding="utf-8", errors="replace")))
    write_state(status="ready", root=str(ROOT), extras=extras, fingerprint=fingerprint())
    say(f"   installed in {seconds(start)}")


def show_progress(line, start):
    """Show a line of pip's log: all in turn on one line of a terminal, else the large steps."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        text = f"   {time.monotonic() - start:4.0f} s  {line}"
        print("\r\033[K" + text[:width], end="", flush=True)
    elif line.startswith("Installing") or (line.startswith("Downloading") and " MB" in line):
        say(f"   {time.monotonic() - start:4.0f} s  {line[:90]}")


def pip_failure(log):
    """Return the end of pip's log and what to do about it."""
    cures = (
        (
            ("No space left on device", "Errno 28"),
            "The disk is full (or TMPDIR's): make room, then run this again.",
        ),
        (
            ("CERTIFICATE_VERIFY_FAILED", "SSLError"),
            "A proxy changes the encryption: `pip config set global.cert FILE` with its "
            "certificate, then run this again.",
        ),
        (
            (
                "Connection",
                "Read timed out",
                "name resolution",
                "getaddrinfo",
                "Network is unreachable",
                "ProxyError",
                "Max retries",
            ),
            "The network does not answer: check it (proxy: the variable HTTPS_PROXY), then run "
            "this again; what is downloaded is kept.",
        ),
        (
            ("No matching distribution found for torch",),
            "PyTorch has no build for this system and Python: use Python 3.11, 3.12 or 3.13 on "
            "64-bit Linux, Windows, or macOS on Apple silicon.",
        ),
        (("MemoryError",), "Memory ran out: close other programs, then run this again."),
    )
    cure = next(
        (cure for signs, cure in cures if any(sign in log for sign in signs)),
        "Run this again; if it fails again, delete the folder .venv first.",
    )
    return "pip failed. The end of its log ({}):\n\n{}\n\n{}".format(
        LOG, "\n".join("   | " + line for line in log.splitlines()[-15:]), cure
    )


# --- system libraries on Linux ------------------------------------------------------------


def missing_packages(with_screen):
    """Return the Debian packages of the libraries (and of the virtual screen) not found."""
    missing = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    if with_screen:
        missing += [package for name, package in PROGRAMS.items() if not shutil.which(name)]
    return missing


def system_libraries(with_screen):
    """Install the system libraries that are missing, or say how; never fails."""
    if not sys.platform.startswith("linux"):
        return
    missing = missing_packages(with_screen)
    if missing:
        headline("system libraries")
        install_packages(missing, "what Qt needs to draw windows")
        still = missing_packages(with_screen)
        if still:
            say("   going on without; what needs a window is left out")


def may_install():
    """Return the beginning of a command that may install packages; None where none may."""
    if not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        quiet = subprocess.DEVNULL
        if not subprocess.call(["sudo", "-n", "true"], stdout=quiet, stderr=quiet):
            return ["sudo", "-n"]
    return None


def install_packages(packages, purpose):
    """Install Debian packages where this user may, else print the command that does."""
    names = " ".join(packages)
    command = "sudo apt-get update && sudo apt-get install -y --no-install-recommends " + names
    prefix = may_install() if sys.platform.startswith("linux") else None
    if prefix is None:
        say(f"   {purpose} is missing. This installs it on Debian and Ubuntu (elsewhere: the")
        say(f"   packages of the same libraries):\n      {command}")
        return
    say(f"   installing {purpose}: {names} ...")
    start = time.monotonic()
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    apt += ["-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=2"]
    output = ""
    for step in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        result = subprocess.run(
            apt + step,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        output += result.stdout
    if result.returncode:
        for line in output.strip().splitlines()[-8:]:
            say("   | " + line)
        say("   apt-get failed; try it by hand:\n      " + command)
    else:
        say(f"   done in {seconds(start)}")


# --- the two commands ---------------------------------------------------------------------


def demo(arguments):
    """Run the main job on the sample; opens napari with the result where there is a screen."""
    if "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ:
        system_libraries(with_screen=False)
    prepare(["all"])
    headline("napari-unet3d demo")
    command = [str(BIN / "napari-unet3d"), "demo", *arguments]
    return subprocess.call(command, env=clean_environment())


def test(arguments):
    """Run every check, then say which passed."""
    system_libraries(with_screen=True)
    prepare(["all", "test"])
    environment = clean_environment()
    # Small networks gain nothing from threads, and two that share a core wait for each other.
    environment.setdefault("OMP_NUM_THREADS", "1")
    python = str(PYTHON)
    validate = [str(BIN / "npe2"), "validate", "napari-unet3d"]
    pytest = [python, "-m", "pytest"]
    if answers(PYTHON, "import PyQt6.QtWidgets, PyQt6.QtOpenGLWidgets"):
        validate.append("--imports")
    else:
        say("\nQt cannot be loaded (see above): the tests of the window are left out")
        pytest += ["-p", "no:pytest-qt"]
    checks = (
        ("ruff check", [python, "-m", "ruff", "check"]),
        ("ruff format", [python, "-m", "ruff", "format", "--check"]),
        ("mypy", [python, "-m", "mypy"]),
        ("lint-imports", [str(BIN / "lint-imports"), "--no-logo"]),
        ("npe2 validate", validate),
        ("pytest", [*pytest, *arguments]),
    )
    results = []
    for name, command in checks:
        headline(name)
        start = time.monotonic()
        code = subprocess.call(command, cwd=str(ROOT), env=environment)
        results.append((name, code, seconds(start)))
    headline("summary")
    for name, code, duration in results:
        say("   {:4}  {:14} {:>9}".format("FAIL" if code else "ok", name, duration))
    return int(any(code for _, code, _ in results))


def main():
    """Read the command line and run the command."""
    if sys.version_info < (3, 7):  # noqa: UP036
        say(
            "This is Python {}. Run this with Python {}.{} or newer, for example: "
            "python3.11 run.py".format(sys.version.split()[0], *MINIMUM_PYTHON)
        )
        return 2
    sys.stdout.reconfigure(errors="replace")
    commands = {"demo": demo, "test": test}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        say(__doc__.strip())
        return 0 if {"-h", "--help"} & set(sys.argv[1:]) else 2
    try:
        return commands[sys.argv[1]](sys.argv[2:])
    except SetupError as error:
        say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        say("\nstopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
