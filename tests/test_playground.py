"""The Playground: its errors, its numbers in a real browser, mouse and keyboard."""

import base64
import importlib.util
import json
import re
import shutil
from pathlib import Path

import live_lab
import pytest
import torch
from live_lab import LAB, initial, playground
from live_tools import check_settings, in_node, in_torch, needs, same_bits

from gvlib import _display, live
from gvlib import playground as module
from gvlib.playground import Playground

STATIC = Path(module.__file__).parent / "static"


@pytest.fixture(scope="module", autouse=True)
def built():
    """The experiment of the tests, compiled once and never committed."""
    needs("ziglang", importlib.util.find_spec("ziglang") is not None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    program = LAB.build()
    LAB.load = lambda: (program, True)
    yield program
    del LAB.load
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def view():
    return playground()


# ---- numbers -------------------------------------------------------------------------


def test_first_tensors_are_python_s_and_kept_once(view):
    for width in live_lab.WIDTHS:
        found, right = view.tensors(h=width), live.flatten(initial(width))
        assert all(torch.equal(found[n], right[n]) for n in right)
        assert found["lr"] == pytest.approx(0.1)
    assert view.tensors(lr=0.3)["lr"] == pytest.approx(0.3)
    numbers = sum(v.numel() for v in live.flatten(initial(64)).values())
    assert len(view.data) < 4 * 2 * numbers  # not the data once for each width
    offsets = [offset for offset, _ in view.spec["arrays"]]
    assert offsets.count(-1) >= 1  # zeros are not sent


def test_text_and_picture_are_torch_s(view):
    after = in_torch(LAB, view.tensors(), "train", view.steps)
    measured = LAB.call("measure", after)
    accuracy = 100 * float(measured["train_accuracy"])
    assert f"Training accuracy: {accuracy:.1f} %" in view.text()
    assert (
        "After 300 steps at label noise 20 %, width 16, Learning rate 0.1"
        in view.text()
    )
    page = view.html()
    assert "With JavaScript, the network trains here" in page
    assert page.count('class="gvp-dot') == 160


def test_sliders_curves_and_formats(view):
    acts = {s["name"]: s["restarts"] for s in view.spec["sliders"]}
    assert acts == {"noise": False, "h": True, "lr": False, "weight_decay": False}
    panels = [
        (p["title"], [s["name"] for s in p["series"]]) for p in view.spec["panels"]
    ]
    assert panels == [
        ("Accuracy", ["train_accuracy", "test_accuracy"]),
        ("Loss", ["loss"]),
    ]
    assert view.spec["sliders"][0]["texts"][2] == "20 %"
    other = playground(curves={"Both": ["loss"]}, lines=[-1, 1], extent=(-2, 2, -1, 1))
    assert other.spec["lines"] == [-1, 1]
    assert other.spec["extent"] == [-2, 2, -1, 1]


def bad(**change):
    def changed(h, seed=0):
        return initial(h, seed) | change

    return changed


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"sliders": {"depth": [1, 2]}}, ValueError, "slider depth is neither"),
        ({"sliders": {"h": [4], "lr": [1, 2]}}, ValueError, "h needs two or more"),
        ({"sliders": {"h": [1, 4]}, "start": {}}, ValueError, "gives no noise"),
        ({"initial": lambda h: initial(1)}, ValueError, "the size h is 1: expected 2"),
        ({"sliders": {"h": [4, 8], "lr": ["a", "b"]}}, ValueError, "lr is a number"),
        ({"initial": 3}, TypeError, "initial is a int"),
        ({"initial": bad(x=torch.zeros(160, 3))}, ValueError, "x has shape"),
        ({"initial": bad(x=torch.full((160, 2), torch.nan))}, ValueError, "not finite"),
        ({"initial": bad(y=torch.zeros(160))}, TypeError, "y is torch.float32"),
        (
            {"initial": bad(y=torch.zeros(150, dtype=torch.long))},
            ValueError,
            "y has shape",
        ),
        ({"initial": bad(z=torch.zeros(3))}, ValueError, r"gives \['z'\]"),
        ({"initial": lambda h: {}}, ValueError, "gives no params.w1"),
        ({"points": ("x", "lr")}, ValueError, "expected names of tensors"),
        ({"test_points": ("absent", "y")}, ValueError, "expected names of tensors"),
        ({"curves": {"A": ["shown"]}}, ValueError, r"curves names \['shown'\]"),
        ({"lines": "loss"}, ValueError, "expected one of train_accuracy"),
        ({"labels": {"depth": "d"}}, ValueError, r"labels names \['depth'\]"),
        ({"start": {"h": 5}}, ValueError, "h 5 is not among"),
        ({"extent": (1, 0, 0, 1)}, ValueError, "expected left < right"),
        ({"alt": ""}, ValueError, "expected words"),
        ({"guide": "w1"}, ValueError, "guide is 'w1': expected one of"),
        ({"compare": {"depth": 1}}, ValueError, "compare is 'depth': expected one of"),
        ({"compare": {"h": 4, "lr": 0.1}}, ValueError, "differ in one slider"),
        ({"compare": {"h": 5}}, ValueError, "h 5 is not among"),
        ({"speed": 7}, ValueError, "speed is '7': expected one of 5, 30"),
    ],
)
def test_bad_options_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        playground(**changes)


def test_other_classes_are_refused():
    labels = torch.full((200,), 2)
    with pytest.raises(ValueError, match="y_test has classes other than 0 and 1"):
        playground(initial=bad(y_test=labels))


def identity(a):
    return {"a": a}


def test_train_and_predict_are_needed(monkeypatch):
    lab = live.Experiment("nothing", [identity], a="n")
    with pytest.raises(ValueError, match="has no function predict"):
        Playground(
            lab, initial=lambda: {}, sliders={}, points=("a", "a"), title="t", alt="a"
        )


def test_a_changed_experiment_is_not_shown_under_old_numbers(monkeypatch, built):
    monkeypatch.setattr(LAB, "load", lambda: (built, False))
    monkeypatch.setattr(_display, "static_build", lambda: True)
    with pytest.raises(ValueError, match="was changed after it was compiled: build it"):
        playground()
    monkeypatch.setattr(_display, "static_build", lambda: False)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert "You changed the code" in playground().text()


def test_a_script_prints_and_a_static_page_gets_html(view, monkeypatch, capsys):
    view.show()
    assert capsys.readouterr().out.startswith("Playground: Memorize noise")
    assert view._repr_html_() is None
    monkeypatch.setattr(_display, "static_build", lambda: True)
    assert view._repr_html_() == view.html()


def test_under_a_kernel_it_is_an_anywidget(view):
    widget = view.widget()
    assert widget is view.widget()
    assert widget.wasm == view.program.wasm
    assert widget.data == view.data
    assert "gvp-stage" in widget._css
    assert "render" in widget._esm
    json.dumps(widget.spec, allow_nan=False)


def test_the_lab_of_these_tests_is_torch_s_for_20_settings(view):
    check_settings(view, in_node)


# ---- in a browser --------------------------------------------------------------------

HEAD = """<!doctype html><html lang="en" data-theme="{theme}"><head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Test</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="static/gv.css">
<link rel="stylesheet" href="static/explorer.css">
<link rel="stylesheet" href="static/playground.css">
<script type="module" src="static/host.js"></script></head><body>
<style>body {{ background: var(--gv-bg); color: var(--gv-fg); margin: 8px }}</style>
<main><h1>Test</h1>{body}</main></body></html>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve, view):
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(STATIC, folder / "static")
    far = f'<p style="height: 3000px">Far above.</p>{view.html()}'
    pair = playground(compare={"lr": 0.01}, speed="max").html()
    for theme in ("light", "dark"):
        for name, body in (("one", view.html()), ("far", far), ("pair", pair)):
            page = HEAD.format(theme=theme, body=body)
            (folder / f"{name}-{theme}.html").write_text(page, "utf-8")
    (folder / "live.html").write_text(
        HEAD.format(theme="light", body='<div id="live"></div>')
    )
    return serve(folder)


@pytest.fixture
def opened(site, tab):
    """`opened(name)` opens a page and waits until the widget is there."""

    def open_page(name="one", theme="light", query="", **options):
        page = tab(f"{site}/{name}-{theme}.html{query}", **options)
        page.wait_for_selector(".gv-playground")
        page.wait_for_function("() => document.querySelector('.gvp-count').textContent")
        return page

    return open_page


def slider(page, label):
    return page.get_by_role("slider", name=label)


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def steps(page):
    text = page.locator(".gvp-count").inner_text()
    return int(re.sub(r"\D", "", text))


TWO_FRAMES = """() => new Promise(
    (done) => requestAnimationFrame(() => requestAnimationFrame(done)))"""
STEP = "Number(document.querySelector('.gvp-count').textContent.replace(/\\D/g, ''))"


def at_least(page, count):
    page.wait_for_function(
        f"n => {STEP} >= n",
        arg=count,
    )


def shows(page, step):
    """Wait until this step is drawn."""
    page.wait_for_function(
        "text => document.querySelector('.gvp-count').textContent === text",
        arg=f"step {step:,}",
    )


def picture(page, which=0):
    canvas = page.locator(".gvp-canvas").nth(which)
    return canvas.evaluate("c => c.toDataURL()")


def changes(page, old):
    """Wait until another picture is drawn than the old one."""
    page.wait_for_function(
        "old => document.querySelector('.gvp-canvas').toDataURL() !== old", arg=old
    )


def settled(page, text):
    """Wait until the address holds the text: the state is written after a pause."""
    page.wait_for_function("text => location.search.includes(text)", arg=text)


def readings(page):
    return page.locator(".gvp-key b").all_inner_texts()


def test_chromium_and_node_give_the_same_bits(opened, view):
    same_bits(opened(), view)


def test_the_numbers_on_the_page_are_torch_s(opened, view):
    page = opened()
    press(page, "Step")
    press(page, "Step")
    shows(page, 2)
    state = view.tensors()
    state |= LAB.call("train", state)
    state |= LAB.call("train", state)
    right = LAB.call("measure", state)
    train, test, loss = readings(page)
    assert train.replace("\xa0", " ") == f"{100 * float(right['train_accuracy']):.1f} %"
    assert test.replace("\xa0", " ") == f"{100 * float(right['test_accuracy']):.1f} %"
    assert float(loss) == pytest.approx(float(state["loss"]), rel=5e-3)


def test_it_mounts_without_errors_or_outside_requests(opened):
    page = opened()
    assert page.locator(".gv-fallback").count() == 0
    assert steps(page) == 0
    assert readings(page)[2] == "–"
    press(page, "Play")
    at_least(page, 50)
    press(page, "Pause")
    assert (page.errors, page.outside) == ([], [])


def test_play_pause_step_reset(opened):
    page = opened()
    before = picture(page)
    press(page, "Play")
    at_least(page, 30)
    press(page, "Pause")
    page.evaluate(TWO_FRAMES)  # what was computed before the press is drawn
    paused = steps(page)
    page.wait_for_timeout(200)
    assert steps(page) == paused
    assert picture(page) != before
    press(page, "Step")
    shows(page, paused + 1)
    press(page, "Reset")
    shows(page, 0)
    assert picture(page) == before


def test_one_run_is_like_another(opened):
    pictures = []
    for _ in range(2):
        page = opened()
        for _ in range(5):
            press(page, "Step")
        shows(page, 5)
        pictures.append((picture(page), readings(page)))
    assert pictures[0] == pictures[1]


def test_all_is_done_with_the_keyboard(opened):
    page = opened()
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press("Space")
    at_least(page, 20)
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    before = steps(page)
    page.keyboard.press("Enter")  # Step
    at_least(page, before + 1)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Reset
    shows(page, 0)
    page.keyboard.press("Tab")
    page.keyboard.press("End")  # the fastest speed
    settled(page, "noise.speed=max")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert slider(page, "label noise").get_attribute("aria-valuetext") == "100 %"
    page.keyboard.press("ArrowLeft")
    assert slider(page, "label noise").get_attribute("aria-valuetext") == "90 %"


def drag(page, label, share, moves=8):
    box = slider(page, label).bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 9, y)
    page.mouse.down()
    page.mouse.move(box["x"] + 9 + (box["width"] - 18) * share, y, steps=moves)
    page.mouse.up()


def test_a_slider_acts_while_it_trains(opened):
    page = opened()
    press(page, "Play")
    at_least(page, 40)
    drag(page, "label noise", 0.7)
    assert slider(page, "label noise").get_attribute("aria-valuetext") == "70 %"
    page.wait_for_function(
        "() => document.querySelector('.gvp-change').getAttribute('d')"
    )
    before = steps(page)
    at_least(page, before + 20)  # it went on, and did not begin anew
    settled(page, "noise.noise=0.7")


def test_the_last_width_wins_and_restarts(opened):
    page = opened()
    press(page, "Play")
    at_least(page, 200)
    for key in ("Home", "End", "Home", "ArrowRight", "End"):
        slider(page, "width").press(key)
    page.wait_for_function(f"() => {STEP} < 200")
    assert slider(page, "width").get_attribute("aria-valuetext") == "64"
    press(page, "Pause")
    press(page, "Reset")
    press(page, "Step")
    assert page.errors == []
    shows(page, 1)
    other = opened(query="?noise.h=64")
    press(other, "Step")
    shows(other, 1)
    assert readings(page) == readings(other)


def test_labels_change_at_once_when_paused(opened):
    page = opened()
    before = picture(page)
    slider(page, "label noise").press("End")
    changes(page, before)
    assert steps(page) == 0


def test_two_runs_differ_in_one_slider(opened):
    page = opened()
    page.get_by_label("Compare with").select_option("another Learning rate")
    assert page.locator(".gvp-canvas").count() == 2
    slider(page, "Learning rate (B)").press("Home")
    for _ in range(3):
        press(page, "Step")
    shows(page, 3)
    names = page.locator(".gvp-name").all_inner_texts()
    assert names == ["A: Learning rate 0.1", "B (dashed): Learning rate 0.01"]
    assert picture(page, 0) != picture(page, 1)
    settled(page, "noise.vs=lr%3A0.01")
    slider(page, "Learning rate (B)").press("ArrowRight")
    slider(page, "Learning rate (B)").press("ArrowRight")
    press(page, "Reset")
    for _ in range(3):
        press(page, "Step")
    shows(page, 3)
    same = [re.fullmatch("A (.*) · B (.*)", text) for text in readings(page)]
    assert all(found[1] == found[2] for found in same)
    reloaded = opened(query=page.url.split(".html")[1])
    assert reloaded.locator(".gvp-canvas").count() == 2
    page.get_by_label("Compare with").select_option("nothing")
    assert page.locator(".gvp-canvas").count() == 1
    assert page.errors == []


def test_a_page_may_begin_with_two_runs(opened):
    page = opened("pair")
    assert page.locator(".gvp-canvas").count() == 2
    names = page.locator(".gvp-name").all_inner_texts()
    assert names == ["A: Learning rate 0.1", "B (dashed): Learning rate 0.01"]
    assert page.get_by_label("Speed").input_value() == "max"
    page.get_by_label("Compare with").select_option("nothing")
    settled(page, "noise.vs=nothing")
    reloaded = opened("pair", query=page.url.split(".html")[1])
    assert reloaded.locator(".gvp-canvas").count() == 1
    assert reloaded.locator(".gvx-note").first.is_hidden()
    assert page.errors + reloaded.errors == []


@pytest.mark.parametrize(
    "query, label, shown, said",
    [
        (
            "noise=7",
            "label noise",
            "100 %",
            "“7”, which is outside 0 % to 100 %; 100 % is",
        ),
        ("lr=-1", "Learning rate", "0.01", "outside 0.01 to 1e+20; 0.01 is used"),
        (
            "lr=0.19",
            "Learning rate",
            "0.1",
            "is no stop of its slider; the nearest, 0.1",
        ),
        ("h=wide", "width", "16", "is not one of its values"),
        ("h=%3Cimg%20src=x%3E", "width", "16", "“<img src=x>”"),
        ("h=64", "width", "64", None),
        ("vs=depth:3", "width", "16", "compares “depth”, which is no slider"),
        ("vs=h:9999", "width", "16", "outside 4 to 64; 64 is used"),
        ("speed=warp", "width", "16", None),
    ],
)
def test_an_address_that_asks_for_too_much_is_corrected(
    opened, query, label, shown, said
):
    page = opened(query=f"?noise.{query}&keep=1")
    assert slider(page, label).first.get_attribute("aria-valuetext") == shown
    note = page.locator(".gvx-note").first
    if said is None:
        assert note.is_hidden()
    else:
        assert said in note.inner_text()
    slider(page, "Weight decay").press("End")
    settled(page, "noise.weight_decay=0.01")
    assert "keep=1" in page.url
    assert page.errors == []


def test_nan_stops_the_run_and_says_where(opened, view):
    page = opened(query="?noise.lr=1e20")
    press(page, "Play")
    alarm = page.locator("[role=alert]")
    alarm.wait_for()
    state, count = view.tensors(lr=1e20), 0
    while not count or torch.isfinite(state["loss"]):
        state |= LAB.call("train", state)
        count += 1
    said = f"The run stopped at step {count}: its loss is no longer a number"
    assert said in alarm.inner_text()
    assert page.get_by_role("button", name="Play").is_disabled()
    slider(page, "Learning rate").press("Home")
    press(page, "Reset")
    assert alarm.is_hidden()
    press(page, "Play")
    at_least(page, 20)
    assert page.errors == []


def test_without_simd_the_picture_stays_and_a_sentence_says_why(site, tab):
    page = tab("about:blank")
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(f"{site}/one-light.html")
    page.wait_for_selector(".gv-error")
    assert "lacks WebAssembly with SIMD" in page.locator(".gv-error").inner_text()
    assert page.locator(".gvp-still").is_visible()
    assert page.locator(".gv-playground").count() == 0


def test_without_javascript_there_are_a_picture_and_a_table(site, tab, view):
    page = tab(f"{site}/one-light.html", java_script_enabled=False)
    assert page.locator(".gvp-still").is_visible()
    assert view._rows()[0][1] in page.locator("table").inner_text()


def test_it_pauses_when_out_of_view(opened):
    page = opened()
    press(page, "Play")
    at_least(page, 20)
    page.evaluate("document.body.style.paddingTop = '4000px'")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(400)
    before = steps(page)
    page.wait_for_timeout(400)
    assert steps(page) == before
    page.locator(".gv-playground").scroll_into_view_if_needed()
    at_least(page, before + 5)


def test_reduced_motion_draws_once_a_second(opened):
    count = """() => {
        const p = CanvasRenderingContext2D.prototype, f = p.putImageData;
        window.drawn = 0;
        p.putImageData = function (...a) {
            window.drawn++; return f.apply(this, a); }; }"""
    drawn = {}
    for motion in ("reduce", "no-preference"):
        page = opened(reduced_motion=motion)
        page.evaluate(count)
        press(page, "Play")
        page.wait_for_timeout(1500)
        drawn[motion] = page.evaluate("window.drawn")
        assert steps(page) > 0
    assert 1 <= drawn["reduce"] <= 3 < drawn["no-preference"]


def test_screen_readers_are_told_and_have_the_numbers(opened):
    page = opened()
    for _ in range(3):
        press(page, "Step")
    shows(page, 3)
    live_text = page.locator("[aria-live=polite]").text_content()
    assert live_text.startswith("Step 3. Training accuracy ")
    label = page.locator(".gvp-canvas").get_attribute("aria-label")
    assert "two moons. Step 3, label noise 20 %, width 16" in label
    page.get_by_text("Data table").click()
    rows = page.locator(".gvx-table tbody tr")
    rows.first.wait_for()
    assert rows.count() == 4
    last = rows.last.locator("th, td").all_inner_texts()
    assert last == ["3", *readings(page)]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
@pytest.mark.parametrize("query", ["", "?noise.vs=lr:0.01&noise.h=wide"])
def test_axe_finds_nothing_and_nothing_overflows(opened, theme, width, query):
    from axe_playwright_python.sync_playwright import Axe

    page = opened("one", theme, query, viewport={"width": width, "height": 800})
    page.get_by_text("Data table").click()
    press(page, "Step")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_light_differ_and_change_at_once(opened):
    page = opened()
    light = picture(page)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    changes(page, light)


def test_the_link_leads_to_the_same_setting(opened, tab):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    slider(page, "label noise").press("End")
    press(page, "Copy link")
    page.get_by_text("Link copied.").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.endswith("#gv-noise")
    other = tab(link)
    other.wait_for_selector(".gv-playground")
    assert slider(other, "label noise").get_attribute("aria-valuetext") == "100 %"


def test_test_points_can_be_shown(opened):
    page = opened()
    before = picture(page)
    page.get_by_label("test points").check()
    changes(page, before)


LIVE = """async (state) => {
  const { default: module } = await import("./static/playground.js");
  const bytes = (text) =>
    new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  state.wasm = bytes(state.wasm);
  state.data = bytes(state.data);
  const model = window.model = {
    state, saved: 0,
    get: (key) => state[key],
    set(key, value) { state[key] = value; },
    save_changes() { this.saved += 1; },
    on() {}, off() {}, send() {},
  };
  const el = document.getElementById("live");
  window.close_view = await module.render({ model, el });
}"""


def test_under_a_kernel_sliders_are_shared_and_the_address_left_alone(site, tab, view):
    page = tab(f"{site}/live.html")
    raw = {"wasm": view.program.wasm, "data": view.data}
    coded = {k: base64.b64encode(v).decode() for k, v in raw.items()}
    page.evaluate(LIVE, {**view._state(), **coded})
    page.wait_for_selector(".gv-playground")
    slider(page, "label noise").press("End")
    assert page.evaluate("model.state.picks") == [10, 1, 2, 0]
    assert page.evaluate("model.saved") == 1
    assert page.evaluate("location.search") == ""
    press(page, "Play")
    at_least(page, 10)
    page.evaluate("close_view()")
    before = steps(page)
    page.wait_for_timeout(200)
    assert steps(page) == before
    assert page.errors == []
