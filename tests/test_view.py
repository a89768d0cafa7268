"""What moving views share: one module for a kernel, words, the frame of the HTML."""

import re
import shutil

import pytest

from gvlib import _view
from gvlib._view import STATIC, View, one_module, widget_class, words

MODULES = ("explorer", "playground", "surface")


class Note(View):
    """The smallest view."""

    module = "surface"

    def __init__(self):
        self.spec = words("A <note>", "It says so.", "", None, "note")

    def text(self):
        return self.spec["alt"]

    def html(self):
        return self._page({"state": {"spec": self.spec}}, "<p>still</p>", "gvx")


def test_a_view_prints_its_text_in_a_script(capsys, monkeypatch):
    monkeypatch.delenv("GV_STATIC", raising=False)
    note = Note()
    note.show()
    assert capsys.readouterr().out == "It says so.\n" == f"{note!r}\n"
    assert note._repr_html_() is None
    monkeypatch.setenv("GV_STATIC", "1")
    assert note._repr_html_() == note.html()
    assert note._repr_mimebundle_() == {"text/plain": "It says so."}


def test_nothing_in_the_data_closes_the_script_element():
    page = Note().html()
    assert 'id="gv-a-note"' in page
    assert page.count("<note>") == 0
    assert page.count("</script>") == 1
    assert page.endswith('<div class="gv-fallback gvx"><p>still</p></div></div>')


@pytest.mark.parametrize("name, value", [("title", " "), ("alt", ""), ("alt", None)])
def test_words_are_wanted(name, value):
    given = {"title": "Title", "alt": "Alt"} | {name: value}
    with pytest.raises(ValueError, match=f"^{name} is .*expected words"):
        words(**given, caption="", id=None, kind="note")


@pytest.mark.parametrize("module", MODULES)
def test_under_a_kernel_a_widget_is_one_module(module, browser, serve, tmp_path):
    made = widget_class(module, ("explorer",), spec="Dict")
    source = one_module(module)
    assert not re.search(r"^(import|export \{)", source, re.MULTILINE)
    (tmp_path / "alone.js").write_text(source, "utf-8")  # and no parts.js beside it
    (tmp_path / "index.html").write_text("<!doctype html><title>t</title>", "utf-8")
    page = browser.new_page()
    page.goto(f"{serve(tmp_path)}/index.html")
    load = "async () => typeof (await import('./alone.js')).default.render"
    assert page.evaluate(load) == "function"
    page.close()
    assert str(made._esm) == source
    assert made(spec={"id": "x"}).spec == {"id": "x"}


def test_a_module_without_its_import_is_refused(monkeypatch, tmp_path):
    shutil.copy(STATIC / "parts.js", tmp_path)
    (tmp_path / "lonely.js").write_text("export default {};\n", "utf-8")
    monkeypatch.setattr(_view, "STATIC", tmp_path)
    with pytest.raises(ValueError, match=r"lonely.js imports parts.js 0 times"):
        one_module("lonely")


def test_the_version_follows_the_shared_parts(monkeypatch, tmp_path):
    for name in ("parts", "surface"):
        shutil.copy(STATIC / f"{name}.js", tmp_path)
    monkeypatch.setattr(_view, "STATIC", tmp_path)
    version = _view._version.__wrapped__
    before = version("surface")
    (tmp_path / "parts.js").write_text("export const clamp = 0;\n", "utf-8")
    assert version("surface") != before
