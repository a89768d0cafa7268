"""What the site needs beyond its configuration, as a Sphinx extension.

Where the pages' results are, the Colab button, and the theme's icons: the theme loads
Font Awesome as half a megabyte of script and three fonts; here the few icons that the
site shows become a font of some kilobytes.
"""

import io
import os
import re
from pathlib import Path

import book
import pydata_sphinx_theme
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx
from sphinx.config import Config

STYLES = {"solid": ("solid-900", 900), "regular": ("regular-400", 400),
          "brands": ("brands-400", 400)}  # fmt: skip
FAMILY = {"solid": "Free", "regular": "Free", "brands": "Brands"}
NAMES = {"fas": "solid", "fa-solid": "solid", "far": "regular",
         "fa-regular": "regular", "fab": "brands", "fa-brands": "brands"}  # fmt: skip
# Classes that start with fa- and are no icons.
NO_ICONS = {"fa-lg", "fa-fw", "fa-sm", "fa-xs", "fa-2x", *NAMES}
_CLASSES = re.compile(r'class="([^"]*\bfa[srb-][^"]*)"')
# What the theme and Jupyter Book load and this site does without: Font Awesome's script
# and fonts, and Thebe, which would run cells on somebody's server.
_LOADED = re.compile(
    r"<(?:link|script)[^>]*(?:vendor/fontawesome/|sphinx-thebe)[^>]*>(?:</script>)?\n?"
    r"|<script>const THEBE_JS_URL[^<]*</script>\n?"
)
# Half of a page's weight, which a page without a formula does without.
_MATHJAX = re.compile(r"<script[^>]*mathjax/startup[^>]*></script>\n?")
_FORMULA = re.compile(r"\\[(\[]|\$\$|\\begin\{")


def github_address(remote: str) -> str | None:
    """A Git remote as an address on GitHub, None where it is something else.

    >>> github_address("git@github.com:somebody/book.git")
    'https://github.com/somebody/book'
    >>> github_address("https://token@github.com/somebody/book")
    'https://github.com/somebody/book'
    >>> github_address("/home/somebody/book")
    """
    found = re.fullmatch(
        r"(?:git@|(?:https?|ssh)://(?:[^@/]+@)?)github\.com[:/]([^/]+/[^/]+?)(?:\.git)?/?",
        remote,
    )
    return f"https://github.com/{found[1]}" if found else None


def configure(app: Sphinx, config: Config) -> None:
    """Point at the kept results, and at the clone's own repository if it has one."""
    folder = os.environ.get("GV_CACHE") or book.cache_folder(book.scale_name())
    config.nb_execution_cache_path = str(folder)
    # Not in _config.yml: there, options would replace all that Jupyter Book sets.
    options = config.html_theme_options
    options.setdefault("logo", {})["text"] = config.html_title
    options["repository_url"] = (
        github_address(book.origin()) or options["repository_url"]
    )


def launch_notebook(app: Sphinx, *event: object) -> None:
    """Let the Colab button open the page's notebook; Colab opens no other format."""
    context = event[2]  # after the page's and the template's name
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                start, path = re.fullmatch(
                    r"(.*/blob/[^/]+)/(.*)\.\w+", button["url"]
                ).groups()
                notebook = path.removeprefix("chapters/")
                button["url"] = f"{start}/notebooks/{notebook}.ipynb"


def lighten(app: Sphinx, failure: Exception | None) -> None:
    """Take what is not needed out of the pages, put a font of the used icons in."""
    if failure or app.builder.format != "html":
        return
    out = Path(app.outdir)
    used = {"solid": set(), "regular": set(), "brands": set()}
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for classes in map(str.split, _CLASSES.findall(text)):
            style = next((NAMES[c] for c in classes if c in NAMES), None)
            if style:
                used[style] |= {c for c in classes if c.startswith("fa-")} - NO_ICONS
        bare = _LOADED.sub("", text)
        if not _FORMULA.search(text):
            bare = _MATHJAX.sub("", bare)
        if bare != text:
            page.write_text(bare, encoding="utf-8")
    write_icons(used, out / "_static")


def write_icons(used: dict[str, set[str]], static: Path) -> None:
    """Write icons.css and a font for each style that is used."""
    theme = Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme"
    source = next(theme.glob("static/vendor/fontawesome/*"))
    points = code_points((source / "css/all.min.css").read_text())
    # The theme's styles show some icons by their number, in ::before and ::after.
    styles = (theme / "static/styles/pydata-sphinx-theme.css").read_text()
    shown = re.findall(r'--pst-[\w-]+:"([\ue000-\uf8ff]|\\f[0-9a-f]{3})"', styles)
    by_number = {int(s[1:], 16) if s[0] == "\\" else ord(s) for s in shown}
    rules = [(book.ROOT / "assets/icons.css").read_text()]
    for style, names in used.items():
        icons = {n: points[n] for n in sorted(names)}
        wanted = set(icons.values()) | (by_number if style == "solid" else set())
        if wanted:
            file, weight = STYLES[style]
            font = subset_font(source / f"webfonts/fa-{file}.ttf", wanted)
            (static / f"icons-{style}.woff").write_bytes(font)
            rules.append(
                f'@font-face{{font-family:"Font Awesome 6 {FAMILY[style]}";'
                f"font-weight:{weight};font-display:block;"
                f'src:url(icons-{style}.woff) format("woff")}}'
            )
        rules += [f'.{n}::before{{content:"\\{p:x}"}}' for n, p in icons.items()]
    (static / "icons.css").write_text("\n".join(rules) + "\n")


def code_points(styles: str) -> dict[str, int]:
    r"""The number of each icon in Font Awesome's own style sheet.

    >>> code_points('.fa-gear:before,.fa-cog:before{content:"\\f013"}')
    {'fa-gear': 61459, 'fa-cog': 61459}
    """
    found = {}
    for names, value in re.findall(
        r'((?:\.fa-[\w-]+:before,?)+)\{content:"([^"]+)"\}', styles
    ):
        point = int(value[1:], 16) if value.startswith("\\") else ord(value[0])
        found |= dict.fromkeys(re.findall(r"\.(fa-[\w-]+)", names), point)
    return found


def subset_font(path: Path, points: set[int]) -> bytes:
    """The glyphs of these numbers as a WOFF font; unchanged input, unchanged bytes."""
    font = TTFont(path, recalcTimestamp=False)
    worker = subset.Subsetter(subset.Options(notdef_outline=False, layout_features=[]))
    worker.populate(unicodes=points)
    worker.subset(font)
    font.flavor = "woff"
    out = io.BytesIO()
    font.save(out)
    return out.getvalue()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx; the theme's own buttons are there at priority 501."""
    app.connect("config-inited", configure)
    app.connect("html-page-context", launch_notebook, priority=900)
    app.connect("build-finished", lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
