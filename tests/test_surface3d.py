"""The Surface: its numbers, its errors, its still picture, and in a real browser."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import RegularGridInterpolator

from gvlib import _display, _relief, landscape, surface3d, widgets
from gvlib._packed import unpack
from gvlib.surface3d import Surface

STATIC = Path(surface3d.__file__).parent / "static"
N = 21
A = np.linspace(-1, 1, N)
WORDS = {"title": "Two bowls", "alt": "A round bowl and a bent one.", "id": "s"}


def bowl(bend=0.0, lift=0.01, n=N, span=1.0, sets=("train", "test"), **changes):
    """A surface: loss = lift + a^2 + 3 b^2 + bend a b, accuracy falls with it."""
    a = np.linspace(-span, span, n)
    x, y = np.meshgrid(a, a)
    loss = lift + x**2 + 3 * y**2 + bend * x * y
    found = {
        "loss": {s: loss * (1 + k) for k, s in enumerate(sets)},
        "accuracy": {s: 1 - loss / (5 + k) for k, s in enumerate(sets)},
        "holes": dict.fromkeys(sets, 0),
        "how": "",
        "members": pd.DataFrame(index=[0]),
        "a": a,
        "b": a,
    }
    return landscape.Surface(**found | changes)


def pitted(at=((3, 4), (10, 15))):
    """A bowl with holes at (row, column)."""
    made = bowl()
    for j, i in at:
        made.loss["train"][j, i] = made.accuracy["train"][j, i] = np.nan
    return made


def crowd(seeds=(3, 7), **columns):
    """The surface of a population."""
    one = bowl()
    stacked = {
        key: {
            s: np.stack([v * (1 - m / 9) for m in range(len(seeds))])
            for s, v in getattr(one, key).items()
        }
        for key in ("loss", "accuracy")
    }
    members = pd.DataFrame({"seed": seeds, "width": 64} | columns)
    return bowl(**stacked, members=members)


def view(surfaces=None, **changes):
    surfaces = surfaces or {"round": bowl(), "bent": bowl(bend=3)}
    return Surface(surfaces, **WORDS | changes)


def state_of(page_html):
    """What the static page embeds: the state, and the numbers as float32."""
    text = re.search(r'<script type="application/json">(.*?)</script>', page_html)[1]
    packed = json.loads(text)
    numbers = unpack(packed["packed"]["values"])
    return packed["state"], numbers


# ---- numbers -------------------------------------------------------------------------


def test_the_page_holds_losses_and_accuracies_to_four_digits():
    state, numbers = state_of(view().html())
    values = numbers.reshape(2, 2, N, N)
    for k, bend in enumerate((0, 3)):
        made = bowl(bend=bend)
        np.testing.assert_allclose(values[k, 0], made.loss["train"], rtol=7e-5)
        np.testing.assert_allclose(values[k, 1], made.accuracy["train"], rtol=7e-5)
    assert state["spec"]["others"] == ["Training accuracy"]
    assert [s["name"] for s in state["spec"]["surfaces"]] == ["round", "bent"]
    assert state["at"]["a"] == state["at"]["b"] == 10  # (0, 0): the network itself


def test_another_set_and_labels():
    made = view(set="test", labels={"a": "first direction", "loss": "Loss"})
    np.testing.assert_allclose(made.values[0, 0], bowl().loss["test"], rtol=7e-5)
    assert made.spec["height"]["label"] == "Loss"
    assert made.spec["others"] == ["Test accuracy"]
    assert "At round, first direction 0, b 0:\n  Loss: 0.02\n" in made.text()


def test_all_surfaces_have_one_height_scale():
    height = view().spec["height"]
    low, high = height["limits"]
    assert low == 0  # nearly reached by the lowest loss
    assert high == pytest.approx(bowl(bend=3).loss["train"].max(), rel=1e-3)
    assert all(low < v < high for v in height["levels"])
    assert len(height["levels"]) >= 6


def test_high_losses_are_cut_and_counted():
    made = view(clip=2)
    assert made.spec["height"]["limits"] == [0, 2]
    above = int((bowl().loss["train"] > 2).sum())
    said = made.spec["surfaces"][0]["said"]
    assert f"{above} of 441 points lie above 2 and are cut off." in said
    assert "cut off" not in view(clip=100).text()
    assert view(clip=100).spec["height"]["limits"] == view().spec["height"]["limits"]


def test_a_log_height_has_levels_in_every_decade():
    height = view({"": bowl(lift=1e-4)}, log=True).spec["height"]
    assert height["scale"] == "log"
    assert height["limits"][0] == pytest.approx(1e-4, rel=1e-3)
    decades = np.floor(np.log10(np.array(height["levels"]) * (1 + 1e-9)))
    assert set(decades) == {-4, -3, -2, -1, 0}


def test_levels_are_round_and_evenly_spaced():
    levels = surface3d._levels(0.0, 12.3, log=False)
    np.testing.assert_allclose(np.diff(levels), levels[1] - levels[0])
    assert levels[0] in (1, 1.25, 2, 2.5)


def test_holes_are_kept_and_counted():
    made = view(pitted())
    assert np.isnan(made.values[0, 0]).sum() == 2
    assert "2 of 441 points are no finite number" in made.spec["surfaces"][0]["said"]
    infinite = bowl()
    infinite.loss["train"][0, :3] = np.inf, -np.inf, 1e200
    assert view(infinite).spec["surfaces"][0]["holes"] == 3


def test_members_of_a_population_are_chosen_by_what_they_differ_in():
    made = view(crowd())
    assert [s["name"] for s in made.spec["surfaces"]] == ["seed 3", "seed 7"]
    expected = crowd().loss["train"][1]
    np.testing.assert_allclose(made.values[1, 0], expected, rtol=7e-5)
    both = view({"wide": crowd(), "narrow": bowl()})
    names = [s["name"] for s in both.spec["surfaces"]]
    assert names == ["wide, seed 3", "wide, seed 7", "narrow"]
    one = view({"wide": crowd(), "narrow": bowl()}, members=[1])
    assert [s["name"] for s in one.spec["surfaces"]] == ["wide", "narrow"]
    np.testing.assert_allclose(one.values[0, 0], expected, rtol=7e-5)
    same = view(crowd(seeds=(1, 1)))
    assert [s["name"] for s in same.spec["surfaces"]] == ["member 0", "member 1"]
    three = view(crowd(seeds=(1, 1, 2)))
    names = [s["name"] for s in three.spec["surfaces"]]
    assert names == ["seed 1", "seed 1 (member 1)", "seed 2"]


def test_colour_is_another_set_s_accuracy():
    made = view(colour="test")
    assert made.values.shape == (2, 3, N, N)
    np.testing.assert_allclose(
        made.values[0, 2], bowl().accuracy["test"], rtol=7e-5, atol=1e-9
    )
    assert made.spec["others"] == ["Training accuracy", "Test accuracy"]
    assert made.spec["colour"]["field"] == 1
    low, high = made.spec["colour"]["limits"]
    assert low == pytest.approx(float(made.values[:, 2].min()), abs=1e-4)
    assert high == pytest.approx(float(made.values[:, 2].max()), abs=1e-4)
    assert view(colour="train").values.shape == (2, 2, N, N)


def test_without_accuracy_there_is_only_the_loss():
    bare = bowl(accuracy={})
    made = view(bare)
    assert made.values.shape == (1, 1, N, N)
    assert made.spec["others"] == []
    assert "accuracy" not in made.text()


def test_how_it_was_computed_is_said_once():
    how = "BatchNorm with batch statistics"
    assert how in view(bowl(how=how)).text()
    both = view({"x": bowl(how=how), "y": bowl(how=how)}).spec["notes"]
    assert both[0] == f"{how}."
    other = view({"x": bowl(how=how), "y": bowl()}).spec["notes"]
    assert other[0] == f"X: {how}."


def test_the_first_setting_can_be_chosen():
    start = {"surface": "bent", "a": 0.52, "b": -1, "angle": 44, "turn": 10}
    state = view(start=start | {"open": True}).spec["start"]
    assert (state["surface"], state["a"], state["b"], state["angle"]) == (1, 15, 0, 15)
    assert (state["turn"], state["tilt"], state["zoom"]) == (10, 36, 100)
    assert state["open"] == 1
    off = bowl(a=A + 3)
    assert view(off).spec["start"]["a"] == 0  # 0 lies outside: the nearest point


# ---- errors --------------------------------------------------------------------------


def without(**changes):
    return {"round": bowl(**changes)}


@pytest.mark.parametrize(
    "surfaces, changes, error, message",
    [
        ([1, 2], {}, TypeError, "surfaces is a list: expected what gv.landscape.surf"),
        ({"x": 3}, {}, TypeError, "x is a int"),
        ({}, {}, ValueError, "surfaces is empty"),
        ({"x": bowl(), "y": bowl(n=5)}, {}, ValueError, "'x' and 'y' have unequal"),
        ({"x": bowl(), "y": bowl(span=2)}, {}, ValueError, "the same span and points"),
        (crowd(), {"members": [2]}, ValueError, r"members is \[2\]; expected some of"),
        (crowd(), {"members": []}, ValueError, r"members is \[\]"),
        (bowl(), {"set": "val"}, ValueError, "no set 'val'; it has train, test"),
        (bowl(), {"colour": "val"}, ValueError, "no set 'val'; it has train, test"),
        (bowl(accuracy={}), {"colour": "train"}, ValueError, "no accuracy is known"),
        (bowl(loss={"train": np.full((N, N), np.nan)}), {}, ValueError, "nothing to"),
        (bowl(loss={"train": np.ones((3, N))}), {}, ValueError, r"has shape \(3, 21\)"),
        (bowl(a=A[::-1]), {}, ValueError, "a must rise in even steps"),
        (bowl(b=A**3), {}, ValueError, "b must rise in even steps"),
        (bowl(), {"clip": 0}, ValueError, "clip is 0; give a loss above 0"),
        (bowl(), {"clip": "high"}, ValueError, "clip is 'high'"),
        (bowl(lift=2), {"clip": 1.5}, ValueError, "the lowest loss is 2: nothing"),
        (bowl(lift=0), {"log": True}, ValueError, "needs losses above 0"),
        (bowl(), {"alt": " "}, ValueError, "alt is ' ': expected words"),
        (bowl(), {"title": None}, ValueError, "title is None: expected words"),
        (bowl(), {"labels": {"c": "c"}}, ValueError, r"labels names \['c'\]"),
        (bowl(), {"marks": {"far": (0, 3)}}, ValueError, "'far' has b = 3, outside"),
        (bowl(), {"start": {"c": 1}}, ValueError, r"start names \['c'\]"),
        (bowl(), {"start": {"a": 7}}, ValueError, "a is 7; expected a number from"),
        (bowl(), {"start": {"angle": "x"}}, ValueError, "angle is 'x'"),
        (bowl(), {"start": {"surface": "x"}}, ValueError, "start: surface is 'x'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(surfaces, changes, error, message):
    with pytest.raises(error, match=message):
        Surface(surfaces, **WORDS | changes)


# ---- where it is shown ---------------------------------------------------------------


def test_a_script_prints_and_a_static_page_gets_html(monkeypatch, capsys):
    made = view()
    made.show()
    out = capsys.readouterr().out
    head = ["Surface: Two bowls", "A round bowl and a bent one.", "At round, a 0, b 0:"]
    assert out.splitlines()[:3] == head
    assert "Training loss: 0.01\n  Training accuracy: 99.8 %" in out
    assert "Lowest computed training loss: 0.01 (a 0, b 0)." in out
    assert made._repr_html_() is None
    assert made._repr_mimebundle_() == {"text/plain": made.text()}
    monkeypatch.setattr(_display, "static_build", lambda: True)
    assert made._repr_html_() == made.html()


def test_under_a_kernel_it_is_an_anywidget():
    made = view()
    widget = made.widget()
    assert widget is made.widget()
    assert widget.values == made.values.tobytes()
    assert widget.at == made.spec["start"]
    assert "gvs-stage" in widget._css
    assert "--gv-s9" in widget._css
    assert "render" in widget._esm
    json.dumps(widget.spec, allow_nan=False)


def test_it_is_exported_beside_the_others():
    assert widgets.Surface is Surface
    assert "Surface" in widgets.__all__


def test_nothing_in_the_page_can_close_the_script():
    made = view({"</script><b>": bowl()}, caption="<i>&", marks={"<u>": (0, 0)})
    page = made.html()
    assert page.count("</script>") == 1
    assert "<i>" not in page
    assert "<b>" not in page
    assert "<u>" not in page


# ---- without JavaScript --------------------------------------------------------------


def test_the_still_picture_shows_cells_contours_and_a_map():
    still = view()._still()
    assert still.count('class="gvs-h') == (N - 1) ** 2
    assert still.count("gvs-contour") >= len(view().spec["height"]["levels"])
    assert 'aria-label="A round bowl and a bent one."' in still
    assert "there are 2 to choose from" in still
    image = base64.b64decode(re.search(r"base64,([^\"]+)", still)[1])
    pixels = matplotlib.image.imread(io.BytesIO(image), format="png")
    assert pixels.shape == (N, N, 3)
    middle, corner = pixels[10, 10], pixels[0, 0]
    assert middle[2] > middle[0]  # low: blue
    assert corner[0] > corner[2]  # high: orange


def test_the_still_picture_leaves_out_holes_and_what_is_cut():
    holed = view(pitted(at=((3, 4),)))._still()
    assert holed.count('class="gvs-h') == (N - 1) ** 2 - 4
    shape = _relief._under(np.array([[0, 0, 0], [1, 0, 2], [1, 1, 2], [0, 1, 0.0]]))
    np.testing.assert_allclose(shape, [[0, 0, 0], [0.5, 0, 1], [0.5, 1, 1], [0, 1, 0]])
    cut = view(bowl(), clip=1)._still()
    assert 0 < cut.count('class="gvs-h') < (N - 1) ** 2
    assert "are cut off" in cut


def test_a_fine_grid_gives_no_heavier_picture():
    heavy = view(bowl(n=101))._still()
    assert heavy.count('class="gvs-h') == _relief.CELLS**2


def test_near_things_are_large_and_far_cells_come_first():
    eye = _relief._Eye(325, 36)
    sides = np.array([[-1, 0], [1, 0]]), np.array([[-1, -1], [1, -1]])
    lengths = []
    for y in (-1, 1):
        ends = np.array([[-0.1, y, 0], [0.1, y, 0]], dtype=float)
        lengths.append(np.linalg.norm(np.subtract(*eye.project(ends))))
    assert lengths[0] > lengths[1]  # the eye is on the side of y = -1
    assert eye.place[1] < 0
    assert sides
    heights = np.zeros((9, 9))
    cells = _relief._cells(heights, heights, eye)
    first, last = (re.search(r"M(\S+) (\S+?)L", c) for c in (cells[0], cells[-1]))
    assert float(first[2]) < float(last[2])  # on a flat plane, far is high


def test_the_table_has_the_losses_along_both_axes():
    made = view(bowl(), start={"b": 0.5})
    table = made._table()
    made_rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', table)
    assert len(made_rows) == 22
    loss = dict(made_rows[:11])  # along a, at b = 0.5
    assert float(loss["1"]) == pytest.approx(0.01 + 1 + 0.75, rel=5e-3)
    assert float(dict(made_rows[11:])["-1"]) == pytest.approx(3.01, rel=5e-3)


# ---- in a browser --------------------------------------------------------------------

HEAD = """<!doctype html><html lang="en" data-theme="{theme}"><head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Test</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="static/gv.css">
<link rel="stylesheet" href="static/explorer.css">
<link rel="stylesheet" href="static/surface.css">
<script type="module" src="static/host.js"></script></head><body>
<style>body {{ background: var(--gv-bg); color: var(--gv-fg); margin: 8px }}</style>
<main><h1>Test</h1>{body}<p style="height: 900px">More.</p></main></body></html>"""


def tinted():
    """A bowl with a place of which only the loss on the training set is known."""
    made = bowl()
    made.accuracy["test"][4, 4] = np.nan
    return made


def many():
    return view({f"number {k}": bowl(bend=k) for k in range(7)})


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve):
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(STATIC, folder / "static")
    pages = {
        "one": view(marks={"best": (0, 0)}),
        "holes": view({"round": bowl(), "pitted": pitted()}, clip=3),
        "tinted": view(
            {"round": tinted(), "bent": bowl(bend=3)},
            colour="test",
            labels={"a": "<b>", "colour": "New points"},
        ),
        "many": many(),
        "log": view(log=True),
        "small": view({"small": bowl(lift=1.234e-6), "large": bowl(lift=54321)}),
        "bare": view(bowl(accuracy={})),
    }
    for theme in ("light", "dark"):
        for name, made in pages.items():
            page = HEAD.format(theme=theme, body=made.html())
            (folder / f"{name}-{theme}.html").write_text(page, "utf-8")
    short = view().html().replace('"values":"', '"values":"AAAA')
    files = {"broken": short, "live": '<div id="live"></div>'}
    for name, body in files.items():
        (folder / f"{name}.html").write_text(HEAD.format(theme="light", body=body))
    return serve(folder)


@pytest.fixture
def opened(site, tab):
    """`opened(name)` opens a page and waits until the widget is drawn."""

    def open_page(name="one", theme="light", query="", **options):
        page = tab(f"{site}/{name}-{theme}.html{query}", **options)
        page.wait_for_selector(".gv-surface")
        page.wait_for_function("() => document.querySelector('.gvs-said').textContent")
        return page

    return open_page


DRAWN = "() => new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))"


def picture(page, part="relief"):
    """The pixels of the 3-D picture, or of the map, once they are drawn."""
    page.evaluate(DRAWN)
    return page.locator(f".gvs-{part} canvas").evaluate("c => c.toDataURL()")


def curve(page, which=0):
    page.evaluate(DRAWN)
    return page.locator(".gvs-curve .gvx-line").nth(which).get_attribute("d")


def readings(page):
    page.evaluate(DRAWN)
    texts = page.locator(".gvs-panel b").all_inner_texts()
    return [text.replace("\xa0", " ") for text in texts]


def where(page):
    page.evaluate(DRAWN)
    return page.locator(".gvx-where").inner_text()


def slider(page, name):
    return page.get_by_role("slider", name=name, exact=True)


def value(page, name):
    page.evaluate(DRAWN)
    return slider(page, name).get_attribute("aria-valuetext")


def settled(page, text):
    """Wait until the address holds the text: the state is written after a pause."""
    page.wait_for_function("text => location.search.includes(text)", arg=text)


def middle(page, selector):
    page.locator(selector).first.scroll_into_view_if_needed()
    box = page.locator(selector).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, start, way, steps=5):
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + way[0], start[1] + way[1], steps=steps)
    page.mouse.up()


def on_map(page, a, b):
    """The pixel of the coordinates a, b in [-1, 1] on the map."""
    page.locator(".gvs-plan").scroll_into_view_if_needed()
    box = page.locator(".gvs-plan canvas").bounding_box()
    x = box["x"] + box["width"] * (a + 1) / 2
    return x, box["y"] + box["height"] * (1 - b) / 2


def test_it_mounts_without_errors_or_outside_requests(opened):
    page = opened()
    assert page.locator(".gv-fallback").count() == 0
    assert readings(page) == ["0.01", "99.8 %"]
    assert where(page) == "At a 0, b 0 · round"
    assert (page.errors, page.outside) == ([], [])


def test_the_mouse_turns_it(opened):
    page = opened()
    before, plan = picture(page), picture(page, "plan")
    drag(page, middle(page, ".gvs-relief"), (80, 30))
    assert picture(page) != before
    assert picture(page, "plan") == plan
    settled(page, "s.turn=285")  # half a degree a pixel, from 325
    settled(page, "s.tilt=51")
    reloaded = opened(query=page.url.split(".html")[1])
    assert picture(reloaded) == picture(page)
    assert page.errors == []


def touch(page, start, way, steps=6):
    """One finger, through the browser's own input queue."""
    session = page.context.new_cdp_session(page)
    send = lambda kind, points: session.send(  # noqa: E731
        "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
    )
    send("touchStart", [{"x": start[0], "y": start[1]}])
    for k in range(1, steps + 1):
        x, y = (s + w * k / steps for s, w in zip(start, way, strict=True))
        send("touchMove", [{"x": x, "y": y}])
    send("touchEnd", [])


def phone(opened, name="one", **options):
    size = {"width": 360, "height": 700}
    return opened(name, viewport=size, has_touch=True, is_mobile=True, **options)


def test_a_finger_turns_it_sideways_and_scrolls_the_page_upwards(opened):
    page = phone(opened)
    before = picture(page)
    start = middle(page, ".gvs-relief")
    top = page.evaluate("scrollY")
    touch(page, start, (90, 0))
    settled(page, "s.turn=")
    turned = picture(page)
    assert turned != before
    assert page.evaluate("scrollY") == top
    touch(page, start, (0, -200))
    page.wait_for_function("top => scrollY > top + 50", arg=top)
    assert picture(page) == turned


def test_a_finger_moves_the_point_and_a_tap_on_the_surface_chooses(opened):
    page = phone(opened)
    start = on_map(page, 0, 0)
    top = page.evaluate("scrollY")
    touch(page, start, (0, -60))  # on the point itself the page stays
    assert page.evaluate("scrollY") == top
    page.wait_for_function("() => !document.querySelector('.gvx-where')"
                           ".textContent.includes('b 0 ')")  # fmt: skip
    chosen = where(page)
    page.touchscreen.tap(*middle(page, ".gvs-relief"))
    page.wait_for_function(
        "old => document.querySelector('.gvx-where').textContent !== old", arg=chosen
    )
    assert page.errors == []


def test_keys_turn_zoom_and_reset_it(opened):
    page = opened()
    relief = page.get_by_role("application")
    relief.focus()
    first = picture(page)
    seen = [first]
    for key in ("ArrowLeft", "ArrowUp", "+", "+", "-", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
        seen.append(picture(page))
        assert seen[-1] != seen[-2], key
    page.keyboard.press("Home")
    assert picture(page) == first
    page.keyboard.press("Control+ArrowLeft")
    assert picture(page) == first
    assert "Arrow keys turn it" in relief.get_attribute("aria-label")
    for _ in range(40):
        page.keyboard.press("ArrowUp")
    settled(page, "s.tilt=90")
    assert page.errors == []


def test_buttons_do_what_dragging_does(opened):
    page = opened()
    relief = page.get_by_role("application")
    for name, key in (("Turn left", "ArrowLeft"), ("Larger", "+")):
        page.get_by_role("button", name=name).click()
        pressed = picture(page)
        page.get_by_role("button", name="Reset", exact=True).click()
        relief.press(key)
        assert picture(page) == pressed
        page.get_by_role("button", name="Reset", exact=True).click()


def test_the_wheel_zooms_only_with_the_focus(opened):
    page = opened(viewport={"width": 800, "height": 600})
    start = middle(page, ".gvs-relief")
    before, top = picture(page), page.evaluate("scrollY")
    page.mouse.move(*start)
    page.mouse.wheel(0, 100)
    page.wait_for_function("top => scrollY > top", arg=top)
    page.mouse.move(1, 1)
    assert picture(page) == before
    page.get_by_role("application").focus()
    page.mouse.move(*middle(page, ".gvs-relief"))
    top = page.evaluate("scrollY")
    page.mouse.wheel(0, -100)
    settled(page, "s.zoom=")
    assert page.evaluate("scrollY") == top


def test_the_point_on_the_map_moves_the_slice_everywhere(opened):
    page = opened()
    before = picture(page), curve(page), curve(page, 1)
    start, end = on_map(page, 0, 0), on_map(page, 0.5, -0.7)
    drag(page, start, (end[0] - start[0], end[1] - start[1]))
    after = picture(page), curve(page), curve(page, 1)
    assert all(x != y for x, y in zip(before, after, strict=True))
    assert (value(page, "a"), value(page, "b")) == ("0.5", "-0.7")
    page.mouse.move(1, 1)
    assert readings(page)[0] == f"{0.01 + 0.25 + 3 * 0.49:.2f}"
    settled(page, "s.a=0.5")
    settled(page, "s.b=-0.7")


def test_an_end_of_the_slice_turns_it(opened):
    page = opened()
    before = picture(page), curve(page)
    start, end = on_map(page, 0.92, 0), on_map(page, 0.5, 0.5)
    drag(page, start, (end[0] - start[0], end[1] - start[1]))
    assert value(page, "Slice angle") == "45°"
    assert value(page, "a") == "0"  # the point stays
    assert picture(page) != before[0]
    assert curve(page) != before[1]
    # on past the half turn: the ends change places under the hand
    start, end = on_map(page, 0.94, 0.94), on_map(page, -0.5, -0.02)
    drag(page, start, (end[0] - start[0], end[1] - start[1]), steps=20)
    assert value(page, "Slice angle") in ("0°", "3°")
    assert page.errors == []


def test_sliders_move_the_slice_by_keyboard(opened):
    page = opened()
    first = curve(page)
    slider(page, "Slice angle").press("ArrowRight")
    slider(page, "Slice angle").press("PageUp")
    assert value(page, "Slice angle") == "18°"
    second = curve(page)
    slider(page, "b").press("End")
    assert value(page, "b") == "1"
    assert len({first, second, curve(page)}) == 3
    settled(page, "s.angle=18")
    page.wait_for_function(
        "() => /b 1 .*18°/.test(document.querySelector('[aria-live]').textContent)"
    )
    said = page.locator("[aria-live=polite]").text_content()
    assert said.startswith("At a 0, b 1 · round: Training loss 3.01")


def test_slices_are_scipy_s_bilinear_ones(opened):
    spec, made = view(bowl(bend=3)).spec, bowl(bend=3)
    code = """async ([spec, loss, x, y, degrees]) => {
      const { Field } = await import("./static/surface.js");
      const field = new Field(spec, Float32Array.from(loss), [Float32Array.from(loss)]);
      return field.slice(x, y, degrees).map((p) => [p.x, p.y, p.t, field.value(p.h),
        p.others[0]]);
    }"""
    page = opened()
    exact = RegularGridInterpolator((A, A), made.loss["train"])
    for x, y, degrees in ((0, 0, 0), (0.3, -0.8, 90), (0.1, 0.2, 33), (1, 1, 135)):
        args = [spec, made.loss["train"].ravel().tolist(), x, y, degrees]
        found = np.array(page.evaluate(code, args))
        places = np.clip(found[:, :2], -1, 1)
        np.testing.assert_allclose(found[:, 3], exact(places[:, ::-1]), rtol=1e-5)
        np.testing.assert_allclose(found[:, 4], found[:, 3], rtol=1e-5)
        along = (found[:, :2] - [x, y]) @ [np.cos(np.radians(degrees)),
                                           np.sin(np.radians(degrees))]  # fmt: skip
        np.testing.assert_allclose(found[:, 2], along, atol=1e-9)
        assert (np.diff(found[:, 2]) >= 0).all()
        ends = np.abs(found[[0, -1], :2]).max(axis=1)
        np.testing.assert_allclose(ends, 1, atol=1e-6)


def test_the_pointer_reads_values_on_map_surface_and_slice(opened):
    page = opened()
    page.mouse.move(*on_map(page, 0.5, 0.3))
    assert where(page) == "Under the pointer: a 0.5, b 0.3 · round"
    assert readings(page)[0] == f"{0.01 + 0.25 + 0.27:.2f}"
    assert page.locator(".gvs-peek").get_attribute("visibility") == "visible"
    page.mouse.move(*middle(page, ".gvs-relief"))
    assert where(page).startswith("Under the pointer: ")
    page.mouse.move(1, 1)
    assert where(page) == "At a 0, b 0 · round"
    page.locator(".gvs-curve").first.scroll_into_view_if_needed()
    box = page.locator(".gvs-curve").first.bounding_box()
    left, right = box["x"] + 46, box["x"] + box["width"] - 12
    page.mouse.move(left + 0.75 * (right - left), box["y"] + 40)
    assert where(page).startswith("On the slice near a 0.5, b 0")
    assert float(readings(page)[0]) == pytest.approx(0.26, abs=0.02)
    assert page.locator(".gvs-peek").get_attribute("visibility") == "visible"


def test_a_click_on_the_surface_chooses_a_point(opened):
    page = opened()
    x, y = middle(page, ".gvs-relief")
    page.mouse.click(x + 60, y - 20)
    page.mouse.move(1, 1)
    assert where(page) != "At a 0, b 0 · round"
    assert where(page).startswith("At a ")


def test_another_surface_is_chosen_by_click_and_by_key(opened):
    page = opened()
    before = picture(page), picture(page, "plan"), curve(page)
    slider(page, "Slice angle").press("PageUp")
    page.get_by_role("radio", name="bent").check()
    after = picture(page), picture(page, "plan"), curve(page)
    assert all(x != y for x, y in zip(before, after, strict=True))
    assert where(page) == "At a 0, b 0 · bent"
    label = page.locator(".gvs-relief canvas").get_attribute("aria-label")
    assert label.endswith("Shown: bent")
    settled(page, "s.surface=bent")
    page.get_by_role("radio", name="bent").press("ArrowLeft")
    assert page.get_by_role("radio", name="round").is_checked()
    assert where(page) == "At a 0, b 0 · round"


def test_many_surfaces_are_a_list(opened):
    page = opened("many")
    assert page.get_by_role("radio").count() == 0
    before = picture(page)
    page.get_by_label("Surface", exact=True).select_option("number 5")
    assert picture(page) != before
    assert page.errors == []


def test_holes_are_drawn_and_counted(opened):
    page = opened("holes")
    assert "no finite number" not in page.locator(".gvs-said").inner_text()
    before = picture(page), picture(page, "plan")
    page.get_by_role("radio", name="pitted").check()
    assert picture(page) != before[0]
    assert picture(page, "plan") != before[1]
    said = page.locator(".gvs-said").inner_text()
    assert "2 of 441 points are no finite number" in said
    page.mouse.move(*on_map(page, A[15], A[10]))
    assert readings(page) == ["no number", "no number"]
    clear = """c => { const s = c.width / 20, at = (i, j) => [...c.getContext("2d")
      .getImageData((i + 0.3) * s, (20 - j - 0.5) * s, 1, 1).data][3];
      return [at(15, 10), at(2, 10)]; }"""
    assert page.locator(".gvs-plan canvas").evaluate(clear) == [0, 255]
    page.get_by_label("cut open").check()
    page.mouse.move(1, 1)
    assert "M" in curve(page)[1:]  # the slice has a gap
    assert page.errors == []


def test_what_is_cut_is_said(opened):
    page = opened("holes")
    above = int((bowl().loss["train"] > 3).sum())
    said = page.locator(".gvs-said").inner_text()
    assert f"{above} of 441 points lie above 3 and are cut off" in said
    corner = "c => [...c.getContext('2d').getImageData(3, 3, 1, 1).data].slice(0, 3)"
    red, green, blue = page.locator(".gvs-plan canvas").evaluate(corner)
    assert max(red, green, blue) - min(red, green, blue) < 20  # grey


def test_it_can_be_cut_open(opened):
    page = opened()
    before = picture(page)
    page.get_by_label("cut open").check()
    opened_up = picture(page)
    assert opened_up != before
    settled(page, "s.open=1")
    for key in ("ArrowLeft", "PageUp"):
        slider(page, "Slice angle").press(key)
    assert picture(page) != opened_up
    for _ in range(8):  # from all sides
        page.get_by_role("button", name="Turn left").click()
    assert page.errors == []


def test_colours_can_be_another_set_s(opened):
    page, plain = opened("tinted"), opened()
    assert "Colour: New points" in page.locator(".gvx-key").inner_text()
    assert len(readings(page)) == 3
    assert picture(page, "plan") != picture(plain, "plan")
    assert page.get_by_label("<b>").count() == 1  # a label is no markup
    assert page.errors == []


def test_a_log_height_is_drawn(opened):
    page, plain = opened("log"), opened()
    assert picture(page) != picture(plain)
    assert readings(page) == readings(plain)
    assert page.errors == []


def test_small_and_large_losses_are_written_as_in_python(opened):
    page = opened("small")
    assert readings(page)[0] == "1.23e-06"
    page.get_by_role("radio", name="large").check()
    assert readings(page)[0] == surface3d._written(54321) == "54300"


def test_without_accuracy_one_curve_is_drawn(opened):
    page = opened("bare")
    assert page.locator(".gvs-curve").count() == 1
    assert page.get_by_role("radio").count() == 0
    assert page.errors == []


@pytest.mark.parametrize("name", ["one", "holes", "tinted", "many"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_axe_finds_nothing_and_nothing_overflows(opened, name, theme, width):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(name, theme, viewport={"width": width, "height": 800})
    page.get_by_text("Data table").click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    right = "e => !e.closest('table') && e.getBoundingClientRect().right"
    far = f"() => Math.max(...[...document.querySelectorAll('main *')].map({right}))"
    assert page.evaluate(far) <= width


def test_dark_and_light_differ_and_change_at_once(opened):
    page = opened()
    light, plan = picture(page), picture(page, "plan")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert picture(page) != light
    assert picture(page, "plan") != plan
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert picture(page) == light


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_by_itself(opened, motion):
    page = opened(reduced_motion=motion)
    picture(page)
    page.evaluate("""() => {
        const p = CanvasRenderingContext2D.prototype, f = p.clearRect;
        window.drawn = 0;
        p.clearRect = function (...a) {
            window.drawn++; return f.apply(this, a); }; }""")
    page.wait_for_timeout(400)
    assert page.evaluate("window.drawn") == 0
    page.get_by_role("application").press("ArrowLeft")
    page.evaluate(DRAWN)
    drawn = page.evaluate("window.drawn")
    assert drawn == 2  # scene and pins, once: no pictures in between
    page.wait_for_timeout(400)
    assert page.evaluate("window.drawn") == drawn


@pytest.mark.parametrize(
    "query, shown, said",
    [
        ("a=7", "At a 1, b 0 · round", "“7”, which is outside -1 to 1; 1 is shown"),
        ("b=0.52", "At a 0, b 0.5 · round", "is no stop of its slider; the nearest"),
        ("a=x", "At a 0, b 0 · round", "is not one of its values"),
        ("surface=bent", "At a 0, b 0 · bent", None),
        ("surface=%3Cb%3E", "At a 0, b 0 · round", "“<b>”, which is not one of its"),
        ("angle=1000", "At a 0, b 0 · round", "outside 0° to 177°; 177° is shown"),
        ("zoom=3", "At a 0, b 0 · round", None),
        ("tilt=-5", "At a 0, b 0 · round", "outside 0° to 90°"),
    ],
)
def test_an_address_that_asks_for_too_much_is_corrected(opened, query, shown, said):
    page = opened(query=f"?s.{query}&keep=1")
    assert where(page) == shown
    note = page.locator(".gvx-note").first
    if said is None:
        assert note.is_hidden()
    else:
        assert said in note.inner_text()
    slider(page, "a").press("Home")
    settled(page, "s.a=-1")
    assert "keep=1" in page.url
    assert page.errors == []


def test_the_link_leads_to_the_same_view(opened, tab):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("application").press("ArrowLeft")
    slider(page, "Slice angle").press("PageUp")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied.").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.endswith("#gv-s")
    other = tab(link)
    other.wait_for_selector(".gv-surface")
    page.mouse.move(1, 1)
    assert value(other, "Slice angle") == "15°"
    assert picture(other) == picture(page)


def test_reset_goes_back_to_the_first_view(opened):
    page = opened(query="?s.a=7&s.turn=20&s.open=1")
    first = picture(opened())
    assert picture(page) != first
    page.get_by_role("button", name="Reset", exact=True).click()
    page.mouse.move(1, 1)
    assert picture(page) == first
    page.wait_for_function("() => location.search === ''")


def test_screen_readers_have_the_numbers(opened):
    page = opened()
    page.get_by_text("Data table").click()
    rows = page.locator(".gvx-table tbody tr")
    rows.first.wait_for()
    assert rows.count() == 24  # 11 along each axis, with a head
    cells = rows.nth(1).locator("th, td").all_inner_texts()
    assert cells[:2] == ["-1", "1.01"]
    slider(page, "b").press("End")
    page.evaluate(DRAWN)
    assert rows.nth(1).locator("td").first.inner_text() == "4.01"
    names = (
        page.locator(".gv-surface")
        .locator("canvas, svg")
        .evaluate_all("all => all.map(e => e.role && e.ariaLabel)")
    )
    assert sum(bool(n) for n in names) == 4  # 3-D, map and two curves


def test_without_javascript_there_are_a_picture_and_a_table(site, tab):
    page = tab(f"{site}/one-light.html", java_script_enabled=False)
    assert page.locator(".gvs-still").count() == 2
    assert page.locator(".gvs-still").first.is_visible()
    assert "Training loss" in page.locator("table").inner_text()
    dark = tab(f"{site}/one-dark.html", java_script_enabled=False)
    fill = "e => getComputedStyle(e).fill"
    cells = [p.locator(".gvs-h0").first for p in (page, dark)]
    assert cells[0].evaluate(fill) != cells[1].evaluate(fill)
    small = {"width": 360, "height": 700}
    phone = tab(f"{site}/one-light.html", java_script_enabled=False, viewport=small)
    boxes = [phone.locator(".gvs-still").nth(k).bounding_box() for k in (0, 1)]
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]  # one below the other
    assert all(b["x"] >= 8 and b["x"] + b["width"] <= 352 for b in boxes)


def test_numbers_that_are_missing_are_said_and_the_picture_stays(site, tab):
    page = tab(f"{site}/broken.html")
    page.wait_for_selector(".gv-error")
    assert "cut short" in page.locator(".gv-error").inner_text()
    assert page.locator(".gvs-still").first.is_visible()


LIVE = """async (state) => {
  const { default: module } = await import("./static/surface.js");
  state.values = new DataView(
    Uint8Array.from(atob(state.values), (c) => c.charCodeAt(0)).buffer);
  const handlers = {};
  window.model = {
    state, saved: 0,
    get: (key) => state[key],
    set(key, value) { state[key] = value; },
    save_changes() { this.saved += 1; },
    on(event, f) { handlers[event] = f; },
    off(event) { delete handlers[event]; },
    tell(event) { handlers[event]?.(); },
    send() {},
  };
  const el = document.getElementById("live");
  window.close_view = await module.render({ model, el });
}"""


def test_under_a_kernel_the_state_is_shared_both_ways(site, tab):
    page = tab(f"{site}/live.html")
    made = view()
    coded = base64.b64encode(made.values.tobytes()).decode()
    page.evaluate(LIVE, {**made._state(), "values": coded})
    page.wait_for_selector(".gv-surface")
    before = picture(page)
    drag(page, middle(page, ".gvs-relief"), (80, 0), steps=9)
    page.wait_for_function("() => model.saved > 0")
    assert page.evaluate("model.saved") == 1  # once the hand rests
    assert page.evaluate("model.state.at.turn") == 285
    assert page.evaluate("location.search") == ""
    page.evaluate("model.state.at = {...model.state.at, turn: 325, surface: 1}")
    page.evaluate("model.tell('change:at')")
    assert where(page) == "At a 0, b 0 · bent"
    assert picture(page) != before
    page.evaluate("close_view()")
    page.evaluate("model.tell('change:at')")
    assert page.errors == []
