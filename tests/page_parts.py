"""What a page defines, without running it."""

import ast
import re
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parent.parent / "chapters"
CELL = re.compile(r"```\{code-cell\} ipython3\n(.*?)```", re.S)
DEFINITIONS = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef


def definitions(page, constants, given=()):
    """A page's imports, functions, classes and some constants; nothing is trained.

    constants: as they stand left of the `=`; given: names that they may need.
    """
    path = CHAPTERS / f"{page}.md"
    cells = [
        re.sub(r"^:tags:.*$", "", c, flags=re.M) for c in CELL.findall(path.read_text())
    ]
    wanted = [
        node
        for node in ast.parse("\n".join(cells)).body
        if isinstance(node, DEFINITIONS)
        or (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]).strip("()") in constants
        )
    ]
    names = dict(given)
    exec(compile(ast.Module(wanted, []), str(path), "exec"), names)
    return names
