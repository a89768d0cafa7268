"""Make .venv and install what the book (or, with --tests, its tests) is pinned to.

Checks what it needs before it changes anything, and does nothing when .venv already
holds these requirements. Standard library only: it runs before anything is installed.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# torch for Linux brings CUDA's libraries: 6 GB unpacked, and pip needs room to unpack.
ROOM_GB = 9 if sys.platform == "linux" else 3


def require(condition: bool, problem: str) -> None:
    """End with one sentence that says what is missing and what to do."""
    if not condition:
        sys.exit(f"error: {problem}")


def check() -> None:
    """Raise SystemExit where .venv cannot be made here."""
    require(
        importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"),
        f"{sys.executable} has no venv module: install it (Debian and Ubuntu: "
        f'"apt install python3-venv"), or set PYTHON to a Python that has it',
    )
    room = float(os.environ.get("GVLIB_ROOM_GB", ROOM_GB))
    free = shutil.disk_usage(ROOT).free / 1e9
    require(
        free >= room,
        f"{free:.1f} GB are free at {ROOT}, and installing torch and the rest takes up "
        f"to {room:g} GB: free some room, or set GVLIB_ROOM_GB to a smaller number if "
        f"your torch is a smaller one (for the CPU only: 3)",
    )
    require(
        os.access(ROOT, os.W_OK),
        f"{ROOT} cannot be written to: clone the book to a folder of your own",
    )


def wanted(files: list[Path]) -> str:
    """A hash of what is to be installed; the stamp in .venv holds the last one."""
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def works() -> bool:
    """True where .venv has a Python of a supported version that starts."""
    test = "import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"
    try:
        return subprocess.run([PYTHON, "-c", test], stderr=-3).returncode == 0
    except OSError:
        return False


def install(files: list[Path], stamp: Path) -> None:
    """Make .venv where there is none that works, and run pip; then write the stamp."""
    if not works():
        check()
        print("making .venv", flush=True)
        # Not sys.executable: that may be the broken environment's own.
        base = getattr(sys, "_base_executable", sys.executable)
        subprocess.run([base, "-m", "venv", "--clear", VENV], check=True)
    for old in VENV.glob("*.stamp"):  # from here on .venv is in between
        old.unlink()
    pip_install(PYTHON, files[1] if len(files) > 1 else files[0])
    link_checkout()
    if len(files) > 1:
        make_colab(files[2])
    stamp.write_text(wanted(files))


def pip_install(python: Path, file: Path) -> None:
    """Install a file of requirements; end with what to do where that fails."""
    print(f"installing {file.name}: some minutes the first time", flush=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-r", file], cwd=ROOT)
    require(
        done.returncode == 0,
        "pip could not install the requirements (its own message is above); "
        "what it has fetched is kept, run this again",
    )


def make_colab(file: Path) -> None:
    """An environment like Colab's, inside .venv, for the test of the notebooks."""
    subprocess.run([PYTHON, "-m", "venv", "--clear", VENV / "colab"], check=True)
    pip_install(VENV / "colab/bin/python", file)
    subprocess.run([PYTHON, Path(__file__), "--share-torch"], check=True)


def share_torch() -> None:
    """Link torch, and all that only torch needs, from .venv into Colab's likeness."""
    names, todo = set(), ["torch"]
    while todo:
        name = todo.pop()
        names.add(name)
        needs = importlib.metadata.requires(name) or []
        plain = {re.split(r"[^\w.-]", n)[0] for n in needs if "extra ==" not in n}
        there = {n for n in plain if _has(n)}
        todo += there - names
    ours = site_packages(VENV)
    theirs = site_packages(VENV / "colab")
    for name in names:
        for file in importlib.metadata.files(name) or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (theirs / top).exists():
                (theirs / top).symlink_to(ours / top)


def _has(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def site_packages(venv: Path) -> Path:
    """Where an environment's packages are."""
    return next((venv / "lib").glob("python3.*/site-packages"))


def link_checkout() -> None:
    """Let .venv's Python import gvlib from this checkout, wherever that is moved."""
    (site_packages(VENV) / "gvlib-checkout.pth").write_text("../../../..\n")


def main() -> None:
    """Install what is asked for, unless the stamp says that it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", action="store_true", help="what the tests need too")
    parser.add_argument("--share-torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.share_torch:
        share_torch()
        return
    names = ["requirements.txt", "requirements-test.txt", "requirements-colab.txt"]
    files = [ROOT / name for name in names]
    # What the tests need includes what the book needs.
    stamps = [(VENV / "tests.stamp", files)]
    if not options.tests:
        stamps.append((VENV / "book.stamp", files[:1]))
    done = any(s.is_file() and s.read_text() == wanted(f) for s, f in stamps)
    if not (done and works()):
        install(stamps[-1][1], stamps[-1][0])


if __name__ == "__main__":
    main()
