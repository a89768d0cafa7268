"""Pages as plain scripts, where nothing of Jupyter can be imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = list(parse_toc_yaml(ROOT / "_toc.yml"))
CODED = [p for p in PAGES if "{code-cell}" in (ROOT / f"{p}.md").read_text()]
BLOCK = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"IPython", "ipykernel", "jupyter", "notebook",
                "jupyter_client", "jupyter_core", "nbclient", "nbformat", "ipywidgets"}:
            raise ModuleNotFoundError(f"no {name} here")
sys.meta_path.insert(0, Refuse())
"""


class Script(NamedTuple):
    """How a page's script ended."""

    status: int
    out: str
    err: str
    claims: list[dict]


running: set[subprocess.Popen] = set()


def run_script(page, folder):
    """Run a page as a plain script, in a folder of its own below `folder`."""
    folder = folder / page.replace("/", "-")
    folder.mkdir()
    convert = [sys.executable, "-m", "jupytext", "--quiet", "--to", "py"]
    script = [ROOT / f"{page}.md", "--output", folder / "page.py"]
    subprocess.run([*convert, *script], check=True)
    (folder / "sitecustomize.py").write_text(BLOCK)
    env = {k: v for k, v in os.environ.items() if not k.startswith("GV_")}
    env["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-W", "error", folder / "page.py"],
        env=env | {"OMP_NUM_THREADS": "1", "GV_RECORD": str(folder / "claims")},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running.add(process)
    out, err = process.communicate()
    running.discard(process)
    files = (folder / "claims").rglob("*.json")
    claims = [claim for file in files for claim in json.loads(file.read_text())]
    return Script(process.returncode, out, err, claims)


def stop():
    """End the scripts that still run."""
    for process in list(running):
        process.kill()
