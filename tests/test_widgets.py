"""The Explorer: its numbers, its errors, under a kernel, and in a real browser."""

import base64
import io
import itertools
import json
import re
import shutil
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from gvlib import _display, _still, widgets
from gvlib._packed import pack, unpack
from gvlib.widgets import Explorer

STATIC = Path(widgets.__file__).parent / "static"
ALT = "Training accuracy rises to 100 %, test accuracy does not."
EPOCHS = 12


def made(corruptions=(0.0, 0.5, 1.0), widths=(32, 128), seeds=3, stop=True):
    """Records as training leaves them; clean runs stop early, at epoch 8 + seed."""
    rows = []
    for c, w, s in itertools.product(corruptions, widths, range(seeds)):
        noise = np.random.default_rng([int(100 * c), w, s]).uniform(0, 0.02, EPOCHS + 1)
        last = 8 + s if stop and c == 0 else EPOCHS
        for e in range(last + 1):
            train = 1 - 0.9 * np.exp(-e * w / 64 / (1 + 3 * c)) - noise[e]
            rows.append((s, c, w, e, train, 0.1 + 0.7 * (1 - c) + noise[e]))
    names = ["seed", "corruption", "width", "epoch", "train_accuracy", "test_accuracy"]
    return pd.DataFrame(rows, columns=names)


def lines(records=None, **changes):
    options = {
        "y": ["train_accuracy", "test_accuracy"],
        "sliders": ["corruption", "width"],
        "title": "Fitting noise",
        "alt": ALT,
        "formats": {"corruption": "percent"},
    }
    return Explorer.lines(made() if records is None else records, **options | changes)


SURFACE = np.linspace(0.01, 1, 3 * 2 * 4 * 6).reshape(3, 2, 4, 6)  # seeds, lr, y, x


def images(values=SURFACE, **changes):
    options = {
        "sliders": {"lr": [0.1, 0.01]},
        "over": "seed",
        "title": "A surface",
        "alt": "It slopes.",
    }
    return Explorer.images(values, **options | changes)


def state_of(page_html):
    """What the static page embeds: the state, and the numbers as float32."""
    text = re.search(r'<script type="application/json">(.*?)</script>', page_html)[1]
    packed = json.loads(text)
    return packed["state"], unpack(packed["packed"]["values"])


# ---- numbers -------------------------------------------------------------------------


def test_bands_are_student_t_over_seeds():
    records = made()
    view = lines(records)
    # Setting (corruption 0.5, width 128) is number 1 * 2 + 1; epoch 7; test accuracy.
    rows = records.query("corruption == 0.5 and width == 128 and epoch == 7")
    values = rows["test_accuracy"].to_numpy()
    mean, error = values.mean(), stats.sem(values)
    low, high = stats.t.interval(0.95, 2, loc=mean, scale=error)
    np.testing.assert_allclose(view.values[3, 1, :, 7], [mean, low, high], rtol=1e-6)
    assert view.values.dtype == np.dtype("<f4")
    assert view.spec["n"] == [3] * 6


def test_a_run_that_ended_holds_its_last_value_and_this_is_said():
    records = made()
    view = lines(records)
    first = records.query("corruption == 0 and width == 32")
    held = first.groupby("seed")["train_accuracy"].last().mean()
    assert view.values[0, 0, 0, -1] == pytest.approx(held, rel=1e-6)
    assert view.spec["ended"][0] == [8, 9, 10]
    assert view.spec["ended"][-1] == []
    assert "6 of 18 runs ended early" in view.spec["notes"][0]
    assert lines(made(stop=False)).spec["notes"] == []


def test_a_run_stopped_between_the_records_adds_no_point_to_the_others():
    records = made(stop=False)
    records = records[records.epoch % 2 == 0]
    stopped = records.iloc[[4]].assign(epoch=9)
    first = (records.seed == 0) & (records.corruption == 0) & (records.width == 32)
    records = pd.concat([records[~first | (records.epoch < 9)], stopped])
    view = lines(records)
    assert view.spec["cursors"][0]["values"] == [0, 2, 4, 6, 8, 10, 12]
    assert (
        view.spec["notes"][1]
        == "1 values of Epoch that not all runs have are left out."
    )
    mean = view.values[0, 0, 0, -1]
    others = records.query("corruption == 0 and width == 32 and epoch == 12")
    own = stopped["train_accuracy"].iloc[0]
    expected = (others["train_accuracy"].sum() + own) / 3
    assert mean == pytest.approx(expected, rel=1e-6)


def test_settings_may_have_different_numbers_of_seeds():
    records = made()
    records = records[(records.corruption < 1) | (records.seed < 2)]
    assert lines(records).spec["n"] == [3, 3, 3, 3, 2, 2]


def test_one_seed_shows_the_line_and_says_that_there_is_no_interval():
    view = lines(made(seeds=1))
    assert np.isfinite(view.values[:, :, 0]).all()
    assert np.isnan(view.values[:, :, 1:]).all()
    assert "One seed only: no interval can be given." in view.spec["notes"]
    assert "; 1 seed, no interval" in view.text()
    assert "interval 0" not in view.text()


def test_runs_and_single_names_are_taken():
    class Runs:
        records = made().query("width == 32")

    view = lines(Runs(), y="train_accuracy", sliders="corruption")
    assert view.values.shape == (3, 1, 3, EPOCHS + 1)


def test_sliders_take_words_truth_values_and_float32():
    records = made(corruptions=(0.0, 0.1), widths=(32, 128))
    records["corruption"] = records["corruption"].astype("float32")
    records["width"] = records["width"].map({32: "sgd", 128: "adam"})
    corruption, width = lines(records).spec["sliders"]
    assert corruption["values"] == [0.0, 0.1]
    assert corruption["texts"] == ["0 %", "10 %"]
    assert width["values"] == ["sgd", "adam"]
    assert not width["numeric"]
    records["width"] = records["width"] == "adam"
    assert lines(records).spec["sliders"][1]["texts"] == ["False", "True"]


def test_shares_are_in_per_cent_from_0_to_100_and_losses_keep_their_range():
    view = lines()
    assert view.spec["value"]["format"] == "percent"
    assert view.spec["value"]["limits"] == [0, 1]
    assert view.spec["value"]["label"] == "Accuracy"
    records = made().assign(loss=lambda f: 3 + f.train_accuracy)
    loss = lines(records, y="loss", y_scale="log").spec["value"]
    assert loss["format"] == "number"
    assert 3 < loss["limits"][0] < loss["limits"][1] < 4
    assert lines(records, y="loss", y_limits=(0, 5)).spec["value"]["limits"] == [0, 5]


def test_two_seeds_do_not_flatten_the_lines():
    records = made(seeds=2).assign(loss=lambda f: f.train_accuracy + f.seed)
    view = lines(records, y="loss")
    low, high = view.spec["value"]["limits"]
    means = view.values[:, :, 0]
    assert high - low <= 2.5 * (means.max() - means.min())
    assert view.values[:, :, 2].max() > high


def test_labels_may_name_any_column():
    """So that a page writes its names once, for all of its pictures."""
    view = lines(y="train_accuracy", labels={"test_accuracy": "t", "width": "units"})
    assert view.spec["sliders"][1]["label"] == "units"


def test_first_setting():
    view = lines(start={"corruption": np.float32(0.5), "width": 128, "epoch": 3})
    assert view.spec["start"] == {"picks": [1, 1], "at": [3]}
    assert "corruption 50 %, width 128, Epoch 3" in view.text()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y": "accuracy"}, r"no column 'accuracy'; it has 'seed'"),
        ({"sliders": ["corruption", "corruption"]}, "used twice"),
        ({"alt": " "}, "alt is ' ': expected words"),
        ({"title": None}, "title is None"),
        ({"start": {"depth": 3}}, r"start names \['depth'\]; the controls are"),
        ({"start": {"width": 64}}, "width 64 is not among 32, 128"),
        ({"labels": {"lr": "rate"}}, r"labels names \['lr'\]"),
        ({"formats": {"epoch": "percent"}}, r"formats names \['epoch'\]"),
        ({"formats": {"width": "euro"}}, "expected one of number, percent"),
        ({"y_format": "euro"}, "expected one of number, percent"),
        ({"x_scale": "log"}, "begins at 0: a log scale"),
        ({"x_scale": "cubic"}, "expected one of linear, log"),
        ({"y_limits": (1, 0)}, "expected low < high"),
        (
            {"compute": lambda **_: None, "sliders": (), "formats": None},
            "more than one",
        ),
    ],
)
def test_bad_options_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        lines(**changes)


@pytest.mark.parametrize(
    "compute, error, message",
    [
        (3, TypeError, "expected a function"),
        (lambda corruption: None, TypeError, "must take corruption, width"),
    ],
)
def test_compute_must_take_the_sliders(compute, error, message):
    with pytest.raises(error, match=message):
        lines(compute=compute)


def test_records_must_be_a_frame_of_numbers():
    with pytest.raises(TypeError, match="expected a pandas DataFrame"):
        lines([1, 2])
    with pytest.raises(TypeError, match="'train_accuracy' holds"):
        lines(made().assign(train_accuracy="high"))
    with pytest.raises(ValueError, match="no rows"):
        lines(made().iloc[:0])


def test_a_missing_combination_is_named():
    records = made()
    gap = (records.corruption == 0.5) & (records.width == 128)
    with pytest.raises(ValueError, match=r"no rows for corruption=0.5 and width=128"):
        lines(records[~gap])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(bad):
    records = made()
    records.loc[40, "test_accuracy"] = bad
    seed, epoch = records.loc[40, ["seed", "epoch"]].astype(int)
    where = f"1 of {len(records)} rows, first at corruption 0, width 128, seed {seed}"
    with pytest.raises(ValueError, match=f"{where}, epoch {epoch}"):
        lines(records)


def test_a_column_that_varies_unseen_is_refused():
    with pytest.raises(
        ValueError, match="corruption 0, seed 0, epoch 0: another column"
    ):
        lines(sliders="corruption")


def test_runs_without_a_common_step_are_refused():
    records = made(stop=False)
    records["epoch"] = 3 * records.epoch + records.seed
    with pytest.raises(ValueError, match="record them at the same steps"):
        lines(records[records.epoch < 36])


# ---- pictures ------------------------------------------------------------------------


def test_pictures_have_the_mean_and_its_interval_at_each_cell():
    view = images()
    assert view.values.shape == (2, 1, 3, 24)
    cell = SURFACE[:, 1, 2, 5]
    low, high = stats.t.interval(0.95, 2, loc=cell.mean(), scale=stats.sem(cell))
    expected = [cell.mean(), low, high]
    np.testing.assert_allclose(view.values[1, 0, :, 2 * 6 + 5], expected, rtol=1e-5)
    assert view.spec["n"] == [3, 3]


def test_panels_tensors_and_no_seeds():
    panels = {"train": torch.tensor(SURFACE[0]), "test": SURFACE[1]}
    view = images(panels, over=None)
    assert view.values.shape == (2, 2, 1, 24)
    np.testing.assert_allclose(view.values[1, 1, 0], SURFACE[1, 1].ravel(), rtol=1e-6)
    assert "seed" not in view.text()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"values": SURFACE[0]}, r"expected \(seed, lr \(2\), height, width\)"),
        ({"values": SURFACE[:, :1]}, r"has shape \(3, 1, 4, 6\)"),
        ({"values": {}}, "values is empty"),
        ({"values": {"a": SURFACE, "b": SURFACE[:2]}}, "panels differ in shape"),
        ({"values": np.where(SURFACE < 0.02, np.nan, SURFACE)}, "not finite, first at"),
        ({"sliders": {"lr": [1, 1]}}, "each once"),
        ({"x": [0, 1]}, r"x has shape \(2,\), expected \(6,\)"),
        ({"y": [0, 1, 3, 4]}, "even steps"),
        ({"points": [[0, 1]]}, "expected x, y, class"),
        ({"origin": "left"}, "expected one of lower, upper"),
        ({"values": -SURFACE, "value_scale": "log"}, "a log scale starts above 0"),
        ({"sliders": {"x": [1, 2]}}, "two controls have one name"),
    ],
)
def test_bad_pictures_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        images(**changes)


def test_a_centre_gives_limits_as_far_on_both_sides():
    value = images(center=0.25).spec["value"]
    low, high = value["limits"]
    assert high - 0.25 == pytest.approx(0.25 - low)
    assert value["colours"]["light"] != value["colours"]["dark"]


def test_the_picture_without_javascript_is_a_png_of_the_values():
    view = images(limits=(0, 1), origin="upper")
    data = re.search(r"data:image/png;base64,([^\"]+)", view.html())[1]
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))
    shares = view.values[0, 0, 0].reshape(4, 6)
    expected = _still._coloured(shares, view.spec["value"]["colours"]["light"]) / 255
    np.testing.assert_allclose(pixels[..., :3], expected, atol=1e-6)


# ---- where it is shown ---------------------------------------------------------------


def test_in_a_script_its_text_is_printed(capsys, monkeypatch):
    monkeypatch.delenv("GV_STATIC", raising=False)
    view = lines()
    view.show()
    printed = capsys.readouterr().out
    mean, low, high = (f"{100 * v:.1f} %" for v in view.values[0, 0, :, -1])
    assert f"Training accuracy: {mean} (95 % interval: {low} to {high})" in printed
    assert printed.startswith(f"Explorer: Fitting noise\n{ALT}\nAt corruption 0 %")
    assert repr(view) == printed.rstrip("\n")
    assert view._repr_html_() is None
    assert list(view._repr_mimebundle_()) == ["text/plain"]


def test_the_static_page_carries_the_numbers(monkeypatch):
    monkeypatch.setenv("GV_STATIC", "1")
    view = lines()
    state, numbers = state_of(view._repr_html_())
    np.testing.assert_allclose(numbers, view.values.ravel(), rtol=2**-14)
    assert state["spec"] == view.spec
    assert list(view._repr_mimebundle_()) == ["text/plain"]


def test_text_cannot_leave_its_place():
    bad = '</script><img src=x onerror="alert(1)">'
    page = lines(title=bad, alt=bad, caption=bad, labels={"width": bad}).html()
    assert "<img" not in page
    assert page.count("</script>") == 1
    assert state_of(page)[0]["spec"]["title"] == bad


# ---- with a kernel -------------------------------------------------------------------


def ask(view, setting):
    """What the front end's button does."""
    widget = view.widget()
    widget._handle_custom_msg({"kind": "compute", "setting": setting}, [])
    return widget


def test_compute_adds_a_setting_and_tells_its_progress():
    told = []

    def compute(corruption, width, progress):
        for fraction in (0.001, 0.5, 2.0):
            progress(fraction)
        return made((corruption,), (width,), seeds=4).drop(columns="width")

    view = lines(compute=compute)
    view.widget().observe(lambda change: told.append(change["new"]), "status")
    widget = ask(view, {"corruption": 0.25, "width": 64})
    assert [s.get("fraction") for s in told] == [0.0, 0.5, 1.0, None]
    assert told[-1]["state"] == "done"
    (entry,) = widget.computed
    assert widget.shown == 0
    assert entry["texts"] == ["25 %", "64"]
    assert entry["n"] == 4
    assert entry["setting"] == [0.25, 64]
    expected = lines(made((0.25,), (64,), seeds=4)).values[0]
    np.testing.assert_allclose(entry["values"], expected, rtol=1e-4)
    json.dumps(entry, allow_nan=False)


def test_compute_goes_to_a_point_that_the_sweep_has():
    view = lines(compute=lambda corruption, width: pytest.fail("not needed"))
    widget = ask(view, {"corruption": 1, "width": 128})
    assert (widget.picks, widget.shown, widget.computed) == ([2, 1], -1, [])


def test_one_computed_seed_has_no_interval():
    view = lines(compute=lambda corruption, width: made((0.2,), (40,), seeds=1))
    (entry,) = ask(view, {"corruption": 0.2, "width": 40}).computed
    assert entry["values"][0][1] == [None] * (EPOCHS + 1)


def test_computed_values_outside_widen_the_axis():
    def compute(corruption, width):
        return made((corruption,), (width,)).assign(loss=50.0)

    view = lines(made().assign(loss=made().test_accuracy), y="loss", compute=compute)
    before = view.spec["value"]["limits"]
    widget = ask(view, {"corruption": 0.3, "width": 40})
    assert before[1] < 2
    assert widget.spec["value"]["limits"][1] >= 50


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"corruption": 0.2}, "must give corruption, width"),
        (None, "must give corruption, width"),
        ({"corruption": "a", "width": 3}, "corruption is 'a': expected a number"),
        ({"corruption": 0.2, "width": float("nan")}, "width is nan"),
        ({"corruption": 0.2, "width": 3.5}, "expected a whole number"),
        ({"corruption": 0.2, "width": 3}, "RuntimeError: no room"),
        ({"corruption": 0.3, "width": 3}, "KeyboardInterrupt: stopped"),
        ({"corruption": 0.4, "width": 3}, "no column 'seed'"),
        ({"corruption": 0.6, "width": 3}, "seed 0 has no row for epoch 5"),
    ],
)
def test_errors_of_compute_are_shown_in_the_widget(setting, message):
    def compute(corruption, width):
        if corruption == 0.2:
            raise RuntimeError("no room")
        if corruption == 0.3:
            raise KeyboardInterrupt
        records = made((corruption,), (width,))
        return records[records.epoch != 5] if corruption == 0.6 else pd.DataFrame()

    widget = ask(lines(compute=compute), setting)
    assert widget.status["state"] == "error"
    assert message in widget.status["text"]
    assert widget.computed == []


def test_without_compute_a_message_is_answered_with_an_error():
    widget = ask(lines(), {"corruption": 0.2, "width": 3})
    assert "no compute function" in widget.status["text"]
    widget._handle_custom_msg({"kind": "other"}, [])


def test_pictures_can_be_computed_too():
    surface = np.full((5, 4, 6), 0.5)
    view = images(compute=lambda lr: surface if lr == 0.05 else surface[:, :2])
    (entry,) = ask(view, {"lr": 0.05}).computed
    assert entry["n"] == 5
    assert entry["values"][0][0] == [0.5] * 24
    assert "expected (4, 6)" in ask(view, {"lr": 0.2}).status["text"]


KERNEL = """
import sys
sys.path.insert(0, {root!r})
sys.path.insert(0, {tests!r})
from test_widgets import lines, made
def compute(corruption, width, progress):
    progress(0.5)
    if corruption > 1:
        raise ValueError("corruption must lie in [0, 1]")
    return made((corruption,), (width,))
view = lines(compute=compute)
view.show()
"""


def messages(client, until, seconds=60):
    """Messages of the kernel up to the first for which `until` is true."""
    seen, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        seen.append(client.get_iopub_msg(timeout=seconds))
        if until(seen[-1]):
            return seen
    raise AssertionError(f"not seen: {[m['msg_type'] for m in seen]}")


def update(message):
    return message["content"].get("data", {}).get("state", {})


@pytest.fixture(scope="module")
def kernel():
    manager = pytest.importorskip("jupyter_client.manager")
    km, client = manager.start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    km.shutdown_kernel(now=True)
    km.cleanup_resources()


def test_a_real_kernel_computes_over_a_comm(kernel):
    tests = Path(__file__).parent
    kernel.execute(KERNEL.format(root=str(tests.parent), tests=str(tests)))
    idle = {"execution_state": "idle"}
    seen = messages(kernel, lambda m: m["content"] == idle)
    assert [m["content"] for m in seen if m["msg_type"] == "error"] == []
    opened = {
        m["content"]["comm_id"]: m["content"]["data"]["state"]
        for m in seen
        if m["msg_type"] == "comm_open"
    }
    (model,) = [i for i, s in opened.items() if s["_model_module"] == "anywidget"]
    assert "export default { render }" in opened[model]["_esm"]
    assert "--gv-c1" in opened[model]["_css"]
    shown = next(m for m in seen if m["msg_type"] == "display_data")["content"]["data"]
    view = shown["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == model
    assert shown["text/plain"].startswith("Explorer: Fitting noise")

    def send(setting):
        content = {"kind": "compute", "setting": setting}
        data = {"method": "custom", "content": content}
        kernel.shell_channel.send(
            kernel.session.msg("comm_msg", {"comm_id": model, "data": data})
        )
        ended = ("done", "error")
        found = messages(
            kernel, lambda m: update(m).get("status", {}).get("state") in ended
        )
        return [update(m) for m in found if m["msg_type"] == "comm_msg"]

    updates = send({"corruption": 0.25, "width": 64})
    assert {"status": {"state": "running", "fraction": 0.5}} in updates
    (entry,) = next(u["computed"] for u in updates if "computed" in u)
    assert entry["texts"] == ["25 %", "64"]
    assert updates[-1]["status"]["state"] == "done"
    failed = send({"corruption": 2, "width": 64})[-1]["status"]
    assert failed["text"] == "ValueError: corruption must lie in [0, 1]"


# ---- in the browser ------------------------------------------------------------------

HEAD = """<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Test</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="static/gv.css">
<link rel="stylesheet" href="static/explorer.css"><style>body {{ margin: 0 auto;
max-width: 800px; background: var(--gv-bg); color: var(--gv-fg); }}</style>
<main><h1>Test</h1>{body}</main>
<script type="module" src="static/host.js"></script>"""


def probability(**changes):
    """Heat maps of two panels with a centre and points."""
    panels = {"train": SURFACE, "test": SURFACE[:, :, ::-1] ** 2}
    points = [[0.2, 0.1, 0], [0.4, 0.3, 1]]
    return images(
        panels, center=0.5, value_format="percent", x=np.linspace(0, 1, 6),
        y=np.linspace(0, 0.6, 4), points=points, id="boundary", **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve):
    """A folder of small pages, served."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(STATIC, folder / "static")
    one, two = lines(id="fit"), probability()
    far = '<div style="height: 4000px"></div>' + lines(id="far").html()
    pages = {
        "one": one.html(),
        "computing": lines(compute=lambda corruption, width: None).html(),
        "equal": lines(made().assign(train_accuracy=1.0)).html(),
        "both": one.html() + two.html(),
        "images": two.html(),
        "twins": one.html() + one.html(),
        "far": far,
        "seed": lines(made(seeds=1), id="fit").html(),
        "broken": one.html().replace('data-module="explorer"', 'data-module="absent"'),
        "cut": re.sub(r'("values":"[^"]{40})[^"]*"', r'\1"', one.html()),
        "few": re.sub(r'("values":")[^"]*"', rf'\1{pack([1.0])}"', one.html()),
    }
    for name, body in pages.items():
        for theme in ("light", "dark"):
            page = HEAD.format(theme=theme, body=body)
            (folder / f"{name}-{theme}.html").write_text(page, "utf-8")
    live = HEAD.format(theme="light", body='<div id="live"></div>')
    (folder / "live.html").write_text(live, "utf-8")
    return serve(folder)


@pytest.fixture
def opened(site, tab):
    """`opened(name)` opens a page and waits until its first widget is there."""

    def open_page(name, theme="light", query="", **options):
        page = tab(f"{site}/{name}-{theme}.html{query}", **options)
        page.wait_for_selector(".gv-explorer")
        return page

    return open_page


def paths(page, kind="gvx-line"):
    return page.eval_on_selector_all(
        f".gvx-svg g path.{kind}", "nodes => nodes.map((n) => n.getAttribute('d'))"
    )


def slider(page, label):
    return page.get_by_role("slider", name=label)


def settled(page, text):
    """Wait until the address holds the text: the state is written after a pause."""
    page.wait_for_function("text => location.search.includes(text)", arg=text)


def test_it_mounts_without_errors_or_outside_requests(opened):
    page = opened("both")
    assert page.locator(".gv-fallback").count() == 0
    assert (page.errors, page.outside) == ([], [])


def test_mouse_drag_moves_the_slider_and_the_picture(opened):
    page = opened("one")
    before = paths(page)
    box = slider(page, "corruption").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 9, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 9, y, steps=5)
    page.mouse.up()
    assert paths(page) != before
    assert slider(page, "corruption").get_attribute("aria-valuetext") == "100 %"
    assert "Dotted, before" in page.locator(".gvx-where").inner_text()
    settled(page, "fit.corruption=1&")
    assert page.errors == []


def test_the_previous_setting_stays_as_a_ghost(opened):
    page = opened("one")
    before = paths(page)
    assert paths(page, "gvx-ghost") == ["", ""]
    slider(page, "width").press("ArrowRight")
    assert paths(page, "gvx-ghost") == before
    assert "before: " in page.locator(".gvx-was").first.inner_text()


@pytest.mark.parametrize(
    "keys, index",
    [
        (["ArrowRight"], 1),
        (["End"], 2),
        (["End", "ArrowLeft"], 1),
        (["End", "Home"], 0),
    ],
)
def test_keys_move_the_slider(opened, keys, index):
    page = opened("one")
    for key in keys:
        slider(page, "corruption").press(key)
    texts = ["0 %", "50 %", "100 %"]
    assert slider(page, "corruption").get_attribute("aria-valuetext") == texts[index]


def test_keys_work_where_the_notebook_cancels_them(opened):
    page = opened("one")
    page.evaluate(
        "document.addEventListener('keydown', (e) => e.preventDefault(), true)"
    )
    slider(page, "corruption").press("ArrowRight")
    assert slider(page, "corruption").get_attribute("aria-valuetext") == "50 %"


def test_the_numbers_in_the_page_are_those_of_python(opened):
    page = opened("one")
    slider(page, "corruption").press("End")
    slider(page, "width").press("End")
    slider(page, "Epoch").press("PageDown")
    start = {"corruption": 1, "width": 128, "epoch": EPOCHS - 5}
    for k, (label, mean, interval) in enumerate(lines(start=start)._rows()):
        text = (
            page.locator(".gvx-readout > div").nth(k).inner_text().replace("\xa0", " ")
        )
        assert text.startswith(f"{label}\n{mean}")
        assert f"95 % interval {interval}" in text
    assert "3 seeds" in page.locator(".gvx-where").inner_text()


def test_the_lines_are_drawn_where_the_values_are(opened):
    page = opened("one")
    values = lines().values[0, 0, 0]
    place = "M([\\d.]+) ([\\d.]+)|L([\\d.]+) ([\\d.]+)"
    points = list(re.finditer(place, paths(page)[0]))
    ys = np.array([float(m[2] or m[4]) for m in points])
    ticks = page.eval_on_selector_all(
        ".gvx-grid",
        "n => n.map((e) => Number(e.getAttribute('d').match(/ ([\\d.]+)H/)[1]))",
    )
    low, high = ticks[0], ticks[-1]  # 0 and 100 %
    np.testing.assert_allclose((low - ys) / (low - high), values, atol=1e-3)


def test_state_survives_reload(opened):
    page = opened("both")
    slider(page, "corruption").press("End")
    slider(page, "Epoch").press("PageDown")
    page.locator("#gv-boundary").scroll_into_view_if_needed()
    slider(page, "Learning rate").press("ArrowRight")
    settled(page, f"fit.epoch={EPOCHS - 5}")
    settled(page, "boundary.lr=0.01")
    before = paths(page), page.locator(".gvx-where").all_inner_texts()
    page.reload()
    page.locator("#gv-boundary .gv-explorer").wait_for()
    assert slider(page, "corruption").get_attribute("aria-valuetext") == "100 %"
    assert slider(page, "Learning rate").get_attribute("aria-valuetext") == "0.01"
    assert paths(page) == before[0]
    assert page.locator(".gvx-note:visible").count() == 0
    page.locator("#gv-fit").get_by_role("button", name="Reset").click()
    page.wait_for_function("() => !location.search.includes('fit.')")
    assert "boundary.lr=0.01" in page.url
    assert slider(page, "corruption").get_attribute("aria-valuetext") == "0 %"


@pytest.mark.parametrize(
    "query, shown, said",
    [
        ("corruption=7", "100 %", "“7”, which is outside 0 % to 100 %; 100 % is shown"),
        ("corruption=-1", "0 %", "outside 0 % to 100 %; 0 % is shown"),
        ("corruption=0.6", "50 %", "is no stop of its slider; the nearest, 50 %, is"),
        ("corruption=many", "0 %", "is not one of its values; the first setting"),
        ("corruption=", "0 %", "is not one of its values"),
        (
            "corruption=%3Cimg%20src=x%20onerror=alert(1)%3E",
            "0 %",
            "“<img src=x onerror=",
        ),
        ("corruption=0.5", "50 %", None),
        ("other=3", "0 %", None),
    ],
)
def test_an_address_that_asks_for_too_much_is_corrected(opened, query, shown, said):
    page = opened("one", query=f"?fit.{query}&keep=1")
    assert slider(page, "corruption").get_attribute("aria-valuetext") == shown
    note = page.locator(".gvx-note")
    if said is None:
        assert note.is_hidden()
    else:
        assert said in note.inner_text()
    slider(page, "width").press("End")
    settled(page, "fit.width=128")
    assert "keep=1" in page.url
    assert page.errors == []


def test_two_views_with_one_title_keep_their_states_apart(opened):
    page = opened("twins")
    page.locator("#gv-fit-2 .gv-explorer").wait_for()
    slider(page, "corruption").nth(1).press("End")
    settled(page, "fit-2.corruption=1")
    assert slider(page, "corruption").nth(0).get_attribute("aria-valuetext") == "0 %"
    assert "fit.corruption" not in page.url


def test_the_link_leads_to_the_same_view(opened, tab):
    page = opened("one", permissions=["clipboard-read", "clipboard-write"])
    slider(page, "corruption").press("End")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied.").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.endswith("#gv-fit")
    other = tab(link)
    other.wait_for_selector(".gv-explorer")
    assert paths(other) == paths(page)


def test_without_a_clipboard_the_link_is_shown(opened):
    page = opened("one")
    refuse = "() => { navigator.clipboard.writeText = async () => { throw Error(); }; }"
    page.evaluate(refuse)
    page.get_by_role("button", name="Copy link").click()
    assert "fit.corruption=0" in page.get_by_label("Link to this view").input_value()


def test_the_pointer_moves_the_cursor_in_the_picture(opened):
    page = opened("one")
    box = page.locator(".gvx-paper").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + 40
    page.mouse.move(*middle)
    assert "Epoch 6" in page.locator(".gvx-where").inner_text()
    page.mouse.move(5, 5)
    assert f"Epoch {EPOCHS}" in page.locator(".gvx-where").inner_text()
    page.mouse.click(*middle)
    page.mouse.move(5, 5)
    assert "Epoch 6" in page.locator(".gvx-where").inner_text()
    assert slider(page, "Epoch").get_attribute("aria-valuetext") == "6"
    thumb = page.evaluate(
        """() => { const r = document.querySelector('.gvx-cursors input');
        const b = r.getBoundingClientRect(), s = (r.value - r.min) / (r.max - r.min);
        return b.left + 9 + s * (b.width - 18); }"""
    )
    assert thumb == pytest.approx(middle[0], abs=1.5)  # right below the cursor's line


def test_screen_readers_are_told_and_have_the_numbers(opened):
    page = opened("one")
    live = page.locator("[aria-live=polite]").first
    assert live.inner_text() == ""
    slider(page, "corruption").press("End")
    page.wait_for_function("() => document.querySelector('[aria-live]').textContent")
    assert live.text_content().startswith("corruption 100 %, width 32, Epoch 12: Train")
    page.get_by_text("Data table").click()
    rows = page.locator(".gvx-table tbody tr")
    rows.first.wait_for()
    assert rows.count() == EPOCHS + 1
    view = lines(start={"corruption": 1, "epoch": 3})
    cells = [
        c.replace("\xa0", " ") for c in rows.nth(3).locator("th, td").all_inner_texts()
    ]
    assert cells == ["3", *itertools.chain(*(r[1:] for r in view._rows()))]
    before = rows.nth(3).inner_text()
    slider(page, "width").press("End")
    assert rows.nth(3).inner_text() != before


def test_one_seed_is_shown_without_a_band(opened):
    page = opened("seed")
    assert paths(page, "gvx-band") == ["", ""]
    assert "1 seed: no interval" in page.locator(".gvx-where").inner_text()
    assert "95" not in page.locator(".gvx-readout").inner_text()
    assert page.errors == []


def test_runs_that_ended_are_counted_at_the_cursor(opened):
    page = opened("one")
    where = page.locator(".gvx-where")
    assert "3 of them ended earlier (last value held)" in where.inner_text()
    for _ in range(3):
        slider(page, "Epoch").press("ArrowLeft")
    assert "1 of them ended earlier" in where.inner_text()


@pytest.mark.parametrize("name", ["one", "images"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_axe_finds_nothing_and_nothing_overflows(opened, name, theme, width):
    from axe_playwright_python.sync_playwright import Axe

    size = {"width": width, "height": 800}
    page = opened(name, theme, viewport=size)
    page.get_by_text("Data table").click()
    page.wait_for_selector(".gvx-table tbody tr")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    across = "document.documentElement.scrollWidth"
    assert page.evaluate(across) <= width


def test_it_follows_the_size_of_its_place(opened):
    page = opened("one", viewport={"width": 900, "height": 700})
    wide = page.locator(".gvx-svg").bounding_box()["width"]
    page.set_viewport_size({"width": 400, "height": 700})
    drawn = "() => Number(document.querySelector('.gvx-svg').getAttribute('width'))"
    page.wait_for_function(f"wide => ({drawn})() < wide", arg=wide)
    assert page.evaluate(drawn) < 400 < 700 < wide


def test_dark_and_light_differ_and_change_at_once(opened):
    page = opened("images")
    colour = """() => { const c = document.querySelector('canvas');
        return [...c.getContext('2d').getImageData(0, 0, 1, 1).data,
                getComputedStyle(document.querySelector('.gvx')).color]; }"""
    light = page.evaluate(colour)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(
        f"old => String(({colour})()) !== old", arg=",".join(map(str, light))
    )
    dark = page.evaluate(colour)
    assert dark[:3] != light[:3]
    assert dark[4] != light[4]


def test_heat_maps_show_python_s_colours_and_values(opened):
    page = opened("images")
    view = probability()
    pixels = page.evaluate(
        """() => [...document.querySelectorAll('canvas')].map((c) =>
        [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])"""
    )
    for panel, values in zip(pixels, view.values[0, :, 0], strict=True):
        shares = _still._shares(values.reshape(4, 6)[::-1], view.spec["value"])
        expected = _still._coloured(shares, view.spec["value"]["colours"]["light"])
        got = np.array(panel).reshape(4, 6, 4)[..., :3]
        assert abs(got - expected.astype(int)).max() <= 1
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + box["height"] * 0.01)
    corner = probability(start={"x": 1.0, "y": 0.6})
    corner.values = unpack(pack(corner.values, step=corner._step()))  # as the page's
    corner.values = corner.values.reshape(view.values.shape)
    text = page.locator(".gvx-readout").inner_text().replace("\xa0", " ")
    assert all(
        f"{mean}\n95 % interval {ends}" in text for _, mean, ends in corner._rows()
    )
    page.mouse.down()
    page.mouse.up()
    assert slider(page, "x").get_attribute("aria-valuetext") == "1"
    slider(page, "y").press("Home")
    assert "y 0 " in page.locator(".gvx-where").inner_text()


def test_motion_is_reduced_where_asked(opened):
    seconds = "getComputedStyle(document.querySelector('.gvx-line')).transitionDuration"
    assert opened("one", reduced_motion="reduce").evaluate(seconds) == "0s"
    assert opened("one").evaluate(seconds) != "0s"


def test_print_leaves_the_controls_out(opened):
    page = opened("one")
    page.emulate_media(media="print")
    assert page.get_by_role("button", name="Reset").is_hidden()
    assert page.locator(".gvx-svg").is_visible()
    assert page.locator(".gvx-readout").is_visible()


def test_it_mounts_when_it_comes_into_view(site, tab):
    page = tab(f"{site}/far-light.html")
    page.wait_for_timeout(300)
    assert page.locator(".gv-explorer").count() == 0
    assert page.locator(".gv-fallback").count() == 1
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector(".gv-explorer")


@pytest.mark.parametrize(
    "name, said",
    [
        ("broken", "absent.js"),
        ("cut", "cut short"),
        ("few", "1 numbers came, expected"),
    ],
)
def test_a_module_that_fails_leaves_the_picture_and_says_so(site, tab, name, said):
    page = tab(f"{site}/{name}-light.html")
    page.wait_for_selector(".gv-error")
    text = page.locator(".gv-error").inner_text()
    assert "could not start" in text
    assert said in text
    assert page.locator(".gv-fallback svg").is_visible()
    assert page.locator(".gv-explorer").count() == 0


def test_without_javascript_there_are_a_picture_and_a_table(site, tab):
    page = tab(f"{site}/both-light.html", java_script_enabled=False)
    assert page.locator("#gv-fit svg").is_visible()
    assert page.locator("#gv-boundary img").count() == 2
    dots = page.locator("#gv-boundary .gvx-still").first.locator(".gvx-point")
    places = [dot.bounding_box() for dot in dots.all()]
    image = page.locator("#gv-boundary img").first.bounding_box()
    for (x, y, _), dot in zip(probability().spec["points"], places, strict=True):
        right = image["x"] + image["width"] * x
        down = image["y"] + image["height"] * (1 - y / 0.6)
        assert dot["x"] + dot["width"] / 2 == pytest.approx(right, abs=3)
        assert dot["y"] + dot["height"] / 2 == pytest.approx(down, abs=3)
    mean = lines()._rows()[0][1]
    assert mean in page.locator("#gv-fit table").inner_text()
    assert "with JavaScript, sliders move" in page.locator("#gv-fit").inner_text()


LIVE = """async (state) => {
  const { default: module } = await import("./static/explorer.js");
  const handlers = {};
  const model = window.model = {
    sent: [], saved: 0, state,
    get: (key) => state[key],
    set(key, value) { state[key] = value; },
    save_changes() { this.saved += 1; },
    send(content) { this.sent.push(content); },
    on: (event, f) => (handlers[event] ??= []).push(f),
    off: (event, f) => { handlers[event] = handlers[event].filter((g) => g !== f); },
    push(key, value) {
      state[key] = value;
      handlers[`change:${key}`].forEach((f) => f());
    },
    listeners: () => Object.values(handlers).flat().length,
  };
  const bytes = Uint8Array.from(atob(state.values), (c) => c.charCodeAt(0));
  state.values = new DataView(bytes.buffer);
  window.close_view = module.render({ model, el: document.getElementById("live") });
}"""


@pytest.fixture
def live(site, tab):
    """The view as a kernel shows it, with a model that records what is sent."""
    view = lines(compute=lambda corruption, width: None, id="fit")
    page = tab(f"{site}/live.html")
    values = base64.b64encode(view.values.tobytes()).decode()
    page.evaluate(LIVE, {**view._state(), "values": values})
    return page


def test_under_a_kernel_it_asks_computes_and_shows(live):
    live.get_by_label("corruption").nth(1).fill("0.25")
    live.get_by_label("width").nth(1).fill("64")
    live.get_by_role("button", name="Compute").click()
    sent = {"kind": "compute", "setting": {"corruption": 0.25, "width": 64}}
    assert live.evaluate("model.sent") == [sent]
    live.evaluate("model.push('status', {state: 'running', fraction: 0.4})")
    assert "40" in live.locator(".gvx-compute [role=status]").inner_text()
    assert live.get_by_role("button", name="Compute").is_disabled()
    before = paths(live)
    view = lines(compute=lambda corruption, width: made((corruption,), (width,)))
    entry = ask(view, {"corruption": 0.25, "width": 64}).computed[0]
    live.evaluate(
        """entry => { model.push('computed', [entry]); model.push('shown', 0);
        model.push('status', {state: 'done', text: 'Computed.'}); }""",
        entry,
    )
    assert paths(live) != before
    assert paths(live, "gvx-ghost") == before
    assert (
        "corruption 25 %, width 64" in live.locator(".gvx-where").inner_text().lower()
    )
    thumb = live.get_by_role("slider", name="width").input_value()
    assert float(thumb) == pytest.approx((64 - 32) / (128 - 32))  # between the stops
    button = live.get_by_role("button", name="corruption 25 %, width 64")
    assert button.get_attribute("aria-pressed") == "true"
    live.get_by_role("slider", name="corruption").press("End")
    assert button.get_attribute("aria-pressed") == "false"
    assert live.evaluate("model.state.picks") == [2, 0]
    assert live.evaluate("model.state.shown") == -1
    button.click()
    assert live.evaluate("model.state.shown") == 0
    assert live.errors == []


def test_under_a_kernel_an_error_is_shown_and_the_address_left_alone(live):
    live.evaluate(
        "model.push('status', {state: 'error', text: 'ValueError: too large'})"
    )
    said = live.locator(".gvx-compute [role=status]")
    assert said.inner_text() == "ValueError: too large"
    live.get_by_role("slider", name="corruption").press("End")
    assert live.evaluate("location.search") == ""
    assert live.get_by_role("button", name="Copy link").count() == 0


def test_the_kernel_can_move_the_view_and_closing_it_leaves_no_listener(live):
    live.evaluate("model.push('picks', [1, 1])")
    moved = live.get_by_role("slider", name="corruption")
    assert moved.get_attribute("aria-valuetext") == "50 %"
    live.evaluate("close_view()")
    assert live.evaluate("model.listeners()") == 0


def test_the_static_page_offers_no_computation(opened):
    view = lines(compute=lambda corruption, width: None)
    assert view.spec["compute"]  # under a kernel it would
    page = opened("computing")
    assert page.get_by_role("button", name="Copy link").count() == 1
    assert page.get_by_role("button", name="Compute").count() == 0


def test_equal_values_are_said_to_be_equal_not_given_an_interval(opened):
    said = opened("equal").locator(".gvx-readout").inner_text().replace("\u00a0", " ")
    assert "all 3 equal" in said
    assert said.count("95 % interval") == 1  # that of the test accuracy
    view = lines(made().assign(train_accuracy=1.0))
    assert "Training accuracy: 100.0 % (95 % interval: all equal)" in view.text()


def test_in_notebook_is_false_here():
    assert not _display.in_notebook()
