"""The house style: what is drawn, what is said, and how it follows the page."""

import base64
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from gvlib import _svg, evidence, plot

CSS = Path(plot.__file__).parent / "static" / "gv.css"
SAID = {"alt": "One line that rises", "caption": "A line."}


def make_runs(levels=(0.0, 0.5, 1.0), seeds=5, epochs=9):
    """Records as gv.train leaves them, with noise; higher levels rise more slowly."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "corruption": level,
            "seed": seed,
            "epoch": epoch,
            "train_accuracy": 1 - np.exp(-epoch / (1 + level)) * rng.uniform(0.8, 1),
            "test_accuracy": 0.9 - 0.8 * level + 0.05 * rng.uniform(),
        }
        for level in levels
        for seed in range(seeds)
        for epoch in range(epochs)
    ]
    return pd.DataFrame(rows)


def make_figure():
    fig, ax = plot.figure()
    ax.plot([0, 1, 2], [0, 1, 4], label="a < b & c")
    ax.scatter([0, 1], [1, 1], color="black")
    ax.legend()
    return fig


@pytest.fixture
def notebook(monkeypatch):
    """Show as on a static page; the list of what was emitted, as (html, text)."""
    shown = []
    monkeypatch.setattr(plot, "emit", lambda html, text: shown.append((html, text)))
    monkeypatch.setattr(plot, "in_notebook", lambda: True)
    monkeypatch.setattr(plot, "static_build", lambda: True)
    return shown


# --- colours -------------------------------------------------------------------------


def blocks():
    """The tokens of gv.css: light, dark where said, dark where preferred."""
    text = re.sub(r"/\*.*?\*/", "", CSS.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\{([^{}]*--gv-c1:[^{}]*)\}", text)
    return [dict(re.findall(r"--gv-([\w-]+):\s*([^;]+);", block)) for block in found]


def linear(colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05), the lighter of the two over the darker."""
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_on_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_tokens_of_the_sheet_are_those_of_the_figures():
    light, dark, preferred = blocks()
    ours = {k: v for k, v in _svg.TOKENS.items() if k != "bg"}
    assert {k: light[k] for k in ours} == ours
    assert "#ffffff" in light["bg"]
    same = set(dark) - {"bg"}
    assert {k: dark[k] for k in same} == {k: preferred[k] for k in same}
    assert set(light) - set(dark) == {"font"}


@pytest.mark.parametrize("page", ["#ffffff", "#f6f7f9", "#121212", "#14181e"])
def test_each_category_stands_out_on_light_and_dark(page):
    assert all(contrast(colour, page) >= 3 for colour in plot.CATEGORIES)


def test_colours_stand_out_in_their_own_mode():
    light, dark, _ = blocks()
    for tokens, pages in (
        (light, ("#ffffff", "#f6f7f9")),
        (dark, ("#121212", "#1d232c")),
    ):
        for page in pages:
            for name in ("fg", "muted", "accent", "good", "bad", "warn"):
                assert contrast(tokens[name], page) >= 4.5, name
            for name in [f"{kind}{i}" for kind in "cs" for i in range(1, 9)]:
                assert contrast(tokens[name], page) >= 3, name


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
DEFICIENT = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def oklab(rgb):
    """Ottosson 2020: a space in which distances are about as large as they look."""
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("kind", DEFICIENT)
def test_first_categories_differ_to_the_colour_blind(kind):
    seen = [oklab(np.array(DEFICIENT[kind]) @ linear(c)) for c in plot.CATEGORIES[:5]]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    # 0.02 is about the least difference that is seen side by side
    assert min(apart) > 0.08


@pytest.mark.parametrize("mode", [0, 1])
def test_steps_run_one_way_in_lightness(mode):
    tokens = blocks()[mode]
    light = [oklab(linear(tokens[f"s{i}"]))[0] for i in range(1, 10)]
    assert (np.diff(light) > 0).all()


# --- style ---------------------------------------------------------------------------


def test_import_and_drawing_leave_the_settings_of_matplotlib():
    before = dict(mpl.rcParams)
    plot.svg(plot.curves(make_runs(), hue="corruption").figure, alt="x")
    assert dict(mpl.rcParams) == before


def test_import_needs_no_pyplot():
    code = "import sys, gvlib; gvlib.plot.figure(); print('pyplot' in str(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_figure_has_the_axes_asked_for():
    fig, axes = plot.figure(2, 3, width=7, sharex=True)
    assert axes.shape == (2, 3)
    assert fig.get_figwidth() == 7
    assert fig.get_figheight() > plot.figure()[0].get_figheight()


def test_titles_and_legends_made_later_are_in_the_style():
    _, (left, right) = plot.figure(1, 2)
    left.set_title("first")
    right.plot([0, 1], label="a line")
    right.set(title="second")
    legend = right.legend()
    with plot.style():
        size, frame = (
            plot.mpl.rcParams[k] for k in ("axes.titlesize", "legend.frameon")
        )
    for ax, text in ((left, "first"), (right, "second")):
        assert ax.get_title("left") == text
        assert ax.get_title("center") == ""
        assert ax._left_title.get_size() == size
    assert legend.get_frame_on() == frame != plot.mpl.rcParams["legend.frameon"]


def test_seaborn_draws_in_the_style():
    import seaborn

    with plot.style():
        _, ax = plot.figure()
        seaborn.lineplot(make_runs((0.0,)), x="epoch", y="test_accuracy", ax=ax)
    assert "var(--gv-c1, #2067dd)" in plot.svg(ax.figure, alt="x")


@pytest.mark.parametrize("along", ["x", "y"])
def test_reference_lies_at_its_value(along):
    _, ax = plot.figure()
    plot.reference(ax, 0.1, "chance", along=along)
    data = ax.lines[0].get_xdata() if along == "x" else ax.lines[0].get_ydata()
    assert list(data) == [0.1, 0.1]
    assert ax.texts[0].get_text() == "chance"


def test_reference_refuses_another_axis():
    with pytest.raises(ValueError, match="along is 'z'"):
        plot.reference(plot.figure()[1], 0, "zero", along="z")


# --- curves --------------------------------------------------------------------------


def band_of(ax, which=0):
    """Mean, low and high of a drawn curve, read back from the picture."""
    path = ax.collections[which].get_paths()[0].vertices
    mean = ax.lines[which].get_ydata()
    edges = [path[np.isclose(path[:, 0], x), 1] for x in ax.lines[which].get_xdata()]
    return mean, [e.min() for e in edges], [e.max() for e in edges]


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_band_is_students(level):
    runs = make_runs((0.0,), seeds=6)
    mean, low, high = band_of(plot.curves(runs, level=level))
    values = runs.pivot(index="epoch", columns="seed", values="train_accuracy")
    values = values.to_numpy()
    scale = stats.sem(values, axis=1)
    ends = stats.t.interval(level, 5, values.mean(axis=1), scale)
    np.testing.assert_allclose(mean, values.mean(axis=1))
    np.testing.assert_allclose([low, high], ends)


def test_a_member_that_stopped_keeps_its_last_value():
    runs = make_runs((0.0,), seeds=2)
    stopped = runs[(runs.seed == 0) | (runs.epoch <= 3)]
    (line,) = plot.curves(stopped).lines
    held = runs[(runs.seed == 1) & (runs.epoch == 3)].train_accuracy.item()
    other = runs[(runs.seed == 0) & (runs.epoch == 8)].train_accuracy.item()
    assert line.get_ydata()[-1] == pytest.approx((held + other) / 2)


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_diverged_member_ends_the_mean_of_its_curve(lost):
    runs = make_runs((0.0,), seeds=3)
    runs.loc[(runs.seed == 1) & (runs.epoch == 4), "train_accuracy"] = lost
    runs = runs[(runs.seed != 1) | (runs.epoch <= 4)]
    mean = plot.curves(runs).lines[0].get_ydata()
    assert np.isfinite(mean).tolist() == [True] * 4 + [False] * 5


def test_one_member_is_drawn_without_a_band():
    ax = plot.curves(make_runs((0.0,), seeds=1))
    assert np.isfinite(ax.lines[0].get_ydata()).all()
    assert not len(ax.collections[0].get_paths())


def test_colour_is_never_alone():
    lines = plot.curves(make_runs(), hue="corruption").lines
    assert len({line.get_marker() for line in lines}) == 3
    assert [line.get_color() for line in lines] == [plot.STEPS[i] for i in (0, 4, 8)]
    both = plot.curves(make_runs((0.0,)), y=["train_accuracy", "test_accuracy"]).lines
    assert len({str(line.get_linestyle()) for line in both}) == 2
    assert len({line.get_marker() for line in both}) == 2


def test_two_measures_share_the_colour_of_their_hue():
    runs = make_runs((0.0, 1.0))
    ax = plot.curves(runs, y=["train_accuracy", "test_accuracy"], hue="corruption")
    colours = [line.get_color() for line in ax.lines]
    assert colours == [c for c in plot.CATEGORIES[:2] for _ in range(2)]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["0", "1", "Training accuracy", "Test accuracy"]


def test_names_stand_at_the_ends_where_they_fit_else_at_the_right():
    runs = make_runs()
    apart = plot.curves(runs, y="test_accuracy", hue="corruption")
    assert [text.get_text() for text in apart.texts] == ["0", "0.5", "1"]
    assert apart.get_legend() is None
    together = plot.curves(runs, hue="corruption", labels={"corruption": "noise"})
    assert not together.texts
    assert together.get_legend().get_title().get_text() == "Noise"
    assert plot.curves(runs, hue="corruption", legend=False).get_legend() is None


def test_names_at_the_ends_do_not_overlap():
    runs = make_runs(seeds=2)
    ax = plot.curves(runs, hue="corruption", legend="ends")
    plot.svg(ax.figure, alt="x")
    boxes = sorted(t.get_window_extent().extents.tolist() for t in ax.texts)
    spans = sorted((low, high) for _, low, _, high in boxes)
    assert all(b[0] >= a[1] for a, b in pairwise(spans))


def test_spread_is_the_nearest_arrangement():
    from scipy.optimize import minimize

    wanted = np.array([3.0, 0.0, 3.5, 20.0, 4.0])
    order = np.argsort(wanted)
    apart = {"type": "ineq", "fun": lambda h: np.diff(h[order]) - 5}
    best = minimize(lambda h: ((h - wanted) ** 2).sum(), wanted, constraints=apart)
    np.testing.assert_allclose(plot._spread(wanted, 5.0), best.x, atol=1e-4)


def test_labels_name_columns_and_values():
    labels = {0.0: "true", 1.0: "random", "test_accuracy": "accuracy on new images"}
    ax = plot.curves(
        make_runs((0.0, 1.0)), y="test_accuracy", hue="corruption", labels=labels
    )
    assert [text.get_text() for text in ax.texts] == ["true", "random"]
    assert ax.get_ylabel() == "Accuracy on new images"
    assert ax.get_xlabel() == "Epoch"


def test_accuracy_is_in_percent_and_loss_is_not():
    runs = make_runs().assign(train_loss=lambda r: 2 * r.train_accuracy)
    share = plot.curves(runs, hue="corruption").yaxis.get_major_formatter()
    loss = plot.curves(runs, y="train_loss", hue="corruption")
    assert share(0.5) == "50\N{NO-BREAK SPACE}%"
    assert "%" not in loss.yaxis.get_major_formatter()(0.5)


def test_palette_may_be_given():
    runs = make_runs()
    draw = {"records": runs, "hue": "corruption"}
    by_value = plot.curves(**draw, palette={0.0: "muted", 0.5: "c3", 1.0: "#123456"})
    assert [x.get_color() for x in by_value.lines] == ["#57606a", "#00a271", "#123456"]
    listed = plot.curves(**draw, palette=["c2", "c1", "c3", "c4"])
    assert listed.lines[0].get_color() == plot.CATEGORIES[1]
    named = plot.curves(**draw, palette="categories")
    assert named.lines[2].get_color() == plot.CATEGORIES[2]


def test_runs_are_taken_as_they_are():
    class Runs:
        records = make_runs((0.0,))

    assert len(plot.curves(Runs()).lines) == 1


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"records": [1, 2]}, TypeError, "records is a list; give a pandas DataFrame"),
        ({"y": "accuracy"}, ValueError, "no column 'accuracy'; it has corruption"),
        ({"records": make_runs()[:0]}, ValueError, "no rows"),
        (
            {"hue": None},
            ValueError,
            "3 rows for seed = 0, epoch = 0. They differ in co",
        ),
        ({"palette": "rainbow"}, ValueError, "palette is 'rainbow'; give"),
        ({"palette": ["c1"]}, ValueError, "3 levels cannot be told apart by 1 colours"),
        ({"legend": "left"}, ValueError, "legend is 'left'"),
        ({"records": make_runs().drop(index=3)}, ValueError, "seed = 0 has no train_"),
    ],
)
def test_curves_say_what_is_wrong(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        plot.curves(**({"records": make_runs(), "hue": "corruption"} | options))


def test_too_many_levels_are_refused():
    with pytest.raises(ValueError, match="10 levels cannot be told apart by 9 colours"):
        plot.curves(make_runs(range(10), seeds=2, epochs=2), hue="corruption")


# --- categories ----------------------------------------------------------------------


def last(runs):
    return runs[runs.epoch == runs.epoch.max()]


@pytest.mark.parametrize("draw", [plot.points, plot.bars])
def test_categories_have_students_interval(draw):
    runs = last(make_runs())
    ax = draw(runs, y="corruption")
    (means,) = [line for line in ax.lines if line.get_gid() == "gv-mean"]
    for i, (_, rows) in enumerate(runs.groupby("corruption")):
        values = rows.test_accuracy
        ends = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
        assert means.get_xdata()[i] == pytest.approx(values.mean())
        np.testing.assert_allclose(ax.collections[0].get_segments()[i][:, 0], ends)


def test_points_show_every_member_and_bars_start_at_zero():
    runs = last(make_runs())
    ticks = plot.points(runs, y="corruption").lines[:3]
    drawn = np.concatenate([line.get_xdata() for line in ticks])
    np.testing.assert_allclose(np.sort(drawn), np.sort(runs.test_accuracy))
    assert {bar.get_x() for bar in plot.bars(runs, y="corruption").patches} == {0}


def test_two_measures_in_a_dot_plot_are_named():
    ax = plot.points(
        last(make_runs()), y="corruption", x=["train_accuracy", "test_accuracy"]
    )
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["Training accuracy", "Test accuracy"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0", "0.5", "1"]
    markers = [line.get_marker() for line in ax.lines if line.get_gid() == "gv-mean"]
    assert len(set(markers)) == 2


def test_categories_refuse_rows_of_several_epochs():
    with pytest.raises(ValueError, match=r"9 rows for .* They differ in epoch"):
        plot.points(make_runs(), y="corruption")


# --- images --------------------------------------------------------------------------


def pixels(drawing):
    """The one embedded image, as an array."""
    from PIL import Image

    (data,) = re.findall(r"data:image/png;base64,([^\"]+)", drawing)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_images_are_embedded_pixel_for_pixel():
    x = torch.arange(2 * 16, dtype=torch.float32).reshape(2, 1, 4, 4) / 31
    ax = plot.images(x, ["first", "second"], limits=(0, 1))
    image = pixels(plot.svg(ax.figure, alt="two"))
    assert image.mode == "LA"
    assert image.size == (4 + 1 + 4, 4)
    grey, alpha = (np.asarray(channel) for channel in image.split())
    np.testing.assert_array_equal(grey[:, :4], np.rint(255 * x[0, 0].numpy()))
    np.testing.assert_array_equal(grey[:, 5:], np.rint(255 * x[1, 0].numpy()))
    assert not alpha[:, 4].any()


def test_images_in_colour_stay_in_colour():
    x = np.random.default_rng(0).uniform(size=(3, 3, 8, 8))
    drawing = plot.svg(plot.images(x, limits=(0, 1)).figure, alt="three")
    image = pixels(drawing)
    assert image.mode == "RGBA"
    seen = np.asarray(image)[:, :8, :3]
    np.testing.assert_array_equal(seen, np.rint(255 * np.moveaxis(x[0], 0, -1)))


def test_each_row_of_a_grid_has_its_own_limits():
    x = np.random.default_rng(0).normal(size=(2, 3, 1, 20, 20))
    x[1] *= 100
    ax = plot.images(x, ["a", "b", "c"], row_titles=["small", "large"])
    assert [t.get_text() for t in ax.texts] == ["a", "b", "c", "small", "large"]
    canvas = np.asarray(ax.images[0].get_array())[..., 0]
    assert canvas[:20].std() == pytest.approx(canvas[-20:].std(), rel=0.2)


def test_a_row_that_is_not_full_is_padded():
    ax = plot.images(np.ones((5, 6, 6)), list("abcde"), columns=3)
    canvas = np.asarray(ax.images[0].get_array())
    assert canvas[:6, :, 3].any()
    assert not canvas[-6:, -6:, 3].any()
    assert len({text.get_position()[1] for text in ax.texts}) == 2


@pytest.mark.parametrize(
    "x, options, message",
    [
        (
            np.zeros((2, 2, 8, 8)),
            {},
            "images of shape (2, 2, 8, 8); expected (n, H, W)",
        ),
        (np.zeros((0, 8, 8)), {}, "images of shape (0, 8, 8)"),
        (np.zeros(8), {}, "images of shape (8,)"),
        (np.full((1, 8, 8), np.nan), {}, "NaN or infinity"),
        (np.zeros((2, 8, 8)), {"titles": ["a"]}, "titles has 1 entries; expected 2"),
        (np.zeros((2, 8, 8)), {"row_titles": ["a"] * 2}, "row_titles has 2 entries"),
    ],
)
def test_images_say_what_is_wrong(x, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plot.images(x, **options)


# --- SVG -----------------------------------------------------------------------------


def test_svg_is_the_same_twice():
    assert plot.svg(make_figure(), alt="x") == plot.svg(make_figure(), alt="x")
    fig = make_figure()
    assert plot.svg(fig, alt="x") == plot.svg(fig, alt="x")


def test_svg_has_no_fixed_black_or_white_and_no_metadata():
    drawing = plot.svg(make_figure(), alt="x")
    bare = re.sub(r"var\(--gv-\w+, #\w+\)", "", drawing)
    assert not re.findall(r"#[0-9a-fA-F]{3,6}\b(?!-)", bare)
    assert "black" not in bare
    for word in ("<?xml", "DOCTYPE", "metadata", "Matplotlib", "<style", "<!--"):
        assert word not in drawing, word
    assert drawing.startswith("<svg xmlns=")
    assert "fill:var(--gv-fg, #1f2328)" in drawing.split(">")[0]


def test_svg_keeps_text_as_text_in_the_page_s_font():
    drawing = plot.svg(make_figure(), alt="x")
    root = ET.fromstring(drawing)
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "a < b & c" in words
    assert "DejaVu" not in drawing
    assert "calc(9.5px * var(--gv-text, 1))" in drawing


def test_svg_of_a_formula_stays_in_place():
    fig, ax = plot.figure()
    ax.set_xlabel(r"$\alpha^2$")
    drawing = plot.svg(fig, alt="x")
    assert "α" in drawing
    assert not re.search(r"<tspan[^>]*calc", drawing)


def test_every_reference_has_its_id_and_every_id_its_reference():
    drawing = plot.svg(make_figure(), alt="x", prefix="mine")
    ids = re.findall(r'\bid="([^"]+)"', drawing)
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', drawing)
    assert set(ids) == {a or b for a, b in used}
    assert len(ids) == len(set(ids)) > 0
    assert all(name.startswith("mine-") for name in ids)


def test_old_matplotlib_s_font_shorthand_is_read():
    look = {"font": "italic bold 10px 'DejaVu Sans', Verdana"}
    _svg._split_font(look)
    assert look["font-size"] == "10px"
    assert look["font-style"] == "italic"
    assert look["font-weight"] == "bold"
    assert "DejaVu Sans" in look["font-family"]


def test_plain_svg_stands_alone():
    drawing = plot.svg(make_figure(), alt="x", themed=False)
    assert "var(" not in drawing
    assert "fill:#ffffff" in drawing
    assert 'width="640"' in drawing


def test_svg_refuses_an_empty_alt():
    with pytest.raises(ValueError, match="alt is empty"):
        plot.svg(make_figure(), alt=" ")


# --- show ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alt, caption, message",
    [
        ("", "A line.", "alt is empty; tell somebody"),
        (" \n", "A line.", "alt is empty"),
        ("A rising line", "", "caption is empty"),
        ("A line", "a LINE.", "alt repeats the caption"),
    ],
)
def test_show_wants_words_before_it_shows(notebook, alt, caption, message):
    with pytest.raises(ValueError, match=message):
        plot.show(make_figure(), alt=alt, caption=caption)
    assert not notebook


def test_show_refuses_what_is_not_text_or_not_a_figure(notebook):
    with pytest.raises(TypeError, match="alt is a NoneType; expected a sentence"):
        plot.show(make_figure(), alt=None, caption="A line.")
    with pytest.raises(TypeError, match="fig is a list; give a matplotlib Figure"):
        plot.show([1], **SAID)
    with pytest.raises(TypeError, match="alt"):
        plot.show(make_figure(), caption="A line.")
    assert not notebook


def test_show_says_everything_and_escapes_it(notebook):
    words = 'a < b & "c" <script>'
    plot.show(make_figure(), alt=f"alt: {words}", caption=f"So: {words}", seeds=5)
    ((page, text),) = notebook
    assert text == f"Figure: alt: {words}"
    assert "<script" not in page
    figure = ET.fromstring(page)
    assert figure.get("class") == "gv-figure"
    (drawing,) = figure.iter("{http://www.w3.org/2000/svg}svg")
    assert drawing.get("role") == "img"
    assert drawing.get("aria-label") == f"alt: {words}"
    caption, provenance = figure.find("figcaption")
    assert (caption.get("class"), caption.text) == ("gv-caption", f"So: {words}")
    assert provenance.get("class") == "gv-provenance"
    assert provenance.text == evidence.provenance(5)


def test_ids_differ_between_figures_even_the_same_one(notebook):
    for fig in (make_figure(), make_figure(), plot.curves(make_runs((0.0,)))):
        plot.show(fig, **SAID)
    ids = [re.findall(r'\bid="([^"]+)"', page) for page, _ in notebook]
    everything = [name for page in ids for name in page]
    assert all(ids)
    assert len(everything) == len(set(everything))


def test_only_a_figure_wider_than_a_phone_is_a_scrolling_region(notebook):
    plot.show(plot.figure()[0], **SAID)
    plot.show(plot.figure(1, 2, width=9)[0], **SAID)
    (narrow, _), (wide, _) = notebook
    assert 'style="--gv-width:640px"' in narrow
    assert "tabindex" not in narrow
    assert 'role="region" tabindex="0" aria-label="Figure, scrolls' in wide


def test_a_live_notebook_gets_the_style_sheet_with_each_figure(notebook, monkeypatch):
    plot.show(make_figure(), **SAID)
    monkeypatch.setattr(plot, "static_build", lambda: False)
    plot.show(make_figure(), **SAID)
    assert "<style>" not in notebook[0][0]
    assert notebook[1][0].startswith("<style>:root { --gv-fg: #1f2328;")


def test_show_closes_pyplot_s_figure(capsys):
    from matplotlib import pyplot

    with mpl.rc_context({"backend": "agg"}):
        fig, ax = pyplot.subplots()
        ax.plot([1, 2])
        plot.show(ax, **SAID)
        assert not pyplot.fignum_exists(fig.number)
    assert capsys.readouterr().out == "Figure: One line that rises\n"


def test_a_script_writes_its_figures_whole(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "my figures"
    monkeypatch.setenv("GV_FIGURES", str(folder))
    monkeypatch.setattr(plot, "_shown", type(plot._shown)())
    caption = "Accuracy < 5 % – a Test: über all!"
    for _ in range(2):
        plot.show(make_figure(), alt="A line", caption=caption)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["accuracy-5-a-test-ber-all-2.svg", "accuracy-5-a-test-ber-all.svg"]
    assert ET.parse(folder / names[0]).getroot().get("aria-label") == "A line"
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Figure: A line", f"  {folder / names[1]}"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("GV_FIGURES", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot write figures into GV_FIGURES=.*unset"):
        plot.show(make_figure(), **SAID)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "file").read_text() == "mine"


# --- tables --------------------------------------------------------------------------


def make_table():
    return pd.DataFrame(
        {
            "method": ["none", "a < b"],
            "accuracy": [
                evidence.interval([0.8, 0.82, 0.84]),
                evidence.interval([1, 1]),
            ],
            "epochs": [12, np.nan],
            "loss": [0.12345, 2.0],
        }
    )


def test_table_shows_values_intervals_and_gaps(notebook):
    plot.table(make_table(), caption="What <b> does.", seeds=3)
    ((page, _),) = notebook
    figure = ET.fromstring(page)
    (region,) = figure.iter("div")
    assert (region.get("role"), region.get("tabindex")) == ("region", "0")
    assert region.get("aria-label") == "What <b> does."
    heads = ["".join(head.itertext()) for head in figure.iter("th")]
    assert heads == ["Method", "Accuracy", "Epochs", "Loss", "none", "a < b"]
    cells = ["".join(cell.itertext()) for cell in figure.iter("td")]
    low, high = evidence.interval([0.8, 0.82, 0.84])[1:3]
    first = f"0.820 [{low:.3f}, {high:.3f}]"
    assert cells == [first, "12", "0.123", "1.000 (all 2 equal)", "–", "2.000"]
    assert figure.find("figcaption")[1].text == evidence.provenance(3)


def test_table_formats_all_three_numbers_of_an_interval(notebook):
    formats = {"accuracy": "{:.0%}", "epochs": lambda v: f"{v:.0f} epochs"}
    plot.table(make_table()[:1], caption="A table.", formats=formats)
    page, text = notebook[0]
    assert "82% [77%, 87%]" in text
    assert "12 epochs" in page


def test_a_script_prints_the_table_in_columns(capsys):
    frame = make_table().set_index("method")[["loss"]]
    plot.table(frame, caption="A table.", labels={"loss": "final loss"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "Method  Final loss",
        "none         0.123",
        "a < b        2.000",
        "A table.",
    ]


@pytest.mark.parametrize(
    "frame, options, message",
    [
        (make_table(), {"caption": " "}, "caption is empty"),
        (make_table()[:0], {}, "the table has no cells"),
        (make_table(), {"formats": {"acc": "{}"}}, "formats names 'acc'; the columns"),
    ],
)
def test_table_says_what_is_wrong(frame, options, message):
    with pytest.raises(ValueError, match=message):
        plot.table(frame, **({"caption": "A table."} | options))


# --- in a kernel ---------------------------------------------------------------------

CELL = """
import warnings
warnings.simplefilter("error")
import gvlib as gv
fig, ax = gv.plot.figure()
ax.plot([1, 2])
gv.plot.show(fig, alt="A line rises", caption="A line.")
"""


@pytest.mark.parametrize("static", [True, False])
def test_a_kernel_shows_one_figure_and_nothing_else(static, monkeypatch):
    from nbclient import execute
    from nbformat.v4 import new_code_cell, new_notebook

    monkeypatch.setenv("GV_STATIC", "1" if static else "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(plot.__file__).parents[1]))
    notebook = execute(new_notebook(cells=[new_code_cell(CELL)]), kernel_name="python3")
    (output,) = notebook.cells[0].outputs
    assert output.data["text/plain"] == "Figure: A line rises"
    assert output.data["text/html"].count('<figure class="gv-figure"') == 1
    assert ("<style>" in output.data["text/html"]) is not static


# --- in a browser --------------------------------------------------------------------


@pytest.fixture
def site(notebook, serve, tmp_path):
    """A page with one of each, as the book would hold it; its address."""
    plot.show(plot.curves(make_runs(), hue="corruption"), **SAID)
    plot.show(plot.figure(1, 2, width=9)[0], **SAID)
    plot.show(plot.images(np.zeros((8, 28, 28)), list("abcdefgh")), **SAID)
    plot.table(make_table().assign(again=make_table().accuracy), caption="A table.")
    body = "\n".join(page for page, _ in notebook)
    head = f"<meta charset=utf-8><title>x</title><style>{CSS.read_text()}</style>"
    width = '<meta name="viewport" content="width=device-width">'
    style = "<style>body { margin: 0 16px }</style>"
    page = (
        f'<!doctype html><html lang="en"><head>{head}{width}{style}</head>{body}</html>'
    )
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "favicon.ico").write_bytes(b"")
    return f"{serve(tmp_path)}/page.html"


COLOUR = """name => {
    const at = document.querySelector(name);
    const found = getComputedStyle(at);
    return [found.fill, found.stroke, found.backgroundColor];
}"""


def rgb(colour):
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


@pytest.mark.parametrize(
    "attributes, scheme, mode",
    [
        ({}, "light", 0),
        ({}, "dark", 1),
        ({"data-theme": "dark"}, "light", 1),
        ({"data-theme": "light"}, "dark", 0),
        ({"theme": "dark"}, "light", 1),
    ],
)
def test_figures_follow_the_mode(site, tab, attributes, scheme, mode):
    page = tab(site, color_scheme=scheme)
    for name, value in attributes.items():
        page.evaluate(f"document.documentElement.setAttribute('{name}', '{value}')")
    tokens = blocks()[mode]
    assert page.evaluate(COLOUR, "svg text")[0] in (
        rgb(tokens[k]) for k in ("fg", "muted")
    )
    of = "[...document.querySelectorAll('svg path')].map(p => getComputedStyle(p))"
    assert rgb(tokens["s9"]) in page.evaluate(f"{of}.map(style => style.stroke)")
    paper = "#ffffff" if mode == 0 else "#121212"
    assert page.evaluate(COLOUR, "figure")[2] == rgb(paper)
    assert not page.errors


def test_jupyterlab_s_own_mode_wins_over_the_system_s(site, tab):
    page = tab(site, color_scheme="dark")
    for light, mode in (("true", 0), ("false", 1)):
        page.evaluate(f"document.body.dataset.jpThemeLight = '{light}'")
        assert page.evaluate(COLOUR, "svg")[0] == rgb(blocks()[mode]["fg"])


def test_nothing_overflows_a_phone_and_what_scrolls_takes_focus(site, tab):
    page = tab(site, viewport={"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    boxes = page.evaluate(
        "[...document.querySelectorAll('.gv-scroll')].map("
        "d => [d.scrollWidth > d.clientWidth, d.tabIndex, d.getAttribute('role')])"
    )
    assert [scrolls for scrolls, _, _ in boxes] == [False, True, False, True]
    assert all(box[1:] == [0, "region"] for box in boxes if box[0])


# What the book's theme does to every HTML output in dark mode (pydata-sphinx-theme).
THEME = """
html[data-theme=dark] .bd-content div.cell_output
.text_html:not(:has(table.dataframe)) {
    background-color: rgb(206, 214, 221); color: rgb(34, 40, 50); padding: 8px;
}
"""


def test_the_theme_does_not_paint_dark_figures_light(notebook, tab, serve, tmp_path):
    plot.show(make_figure(), **SAID)
    output = '<div class="output text_html" id="{}">{}</div>'
    outputs = output.format("ours", notebook[0][0]) + output.format("other", "<p>a</p>")
    page = (
        f"<!doctype html><html lang=en data-theme=dark><title>x</title><style>{THEME}"
        f"{CSS.read_text()}</style><link rel=icon href=data:,><div class=bd-content>"
        f"<div class=cell_output>{outputs}</div></div></html>"
    )
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    shown = tab(f"{serve(tmp_path)}/page.html")
    assert shown.evaluate(COLOUR, "#ours")[2] == "rgba(0, 0, 0, 0)"
    assert shown.evaluate(COLOUR, "#other")[2] == "rgb(206, 214, 221)"


def test_text_of_a_figure_grows_on_a_phone_and_stays_inside(site, tab):
    sizes = []
    for width in (800, 360):
        page = tab(site, viewport={"width": width, "height": 700})
        size = (
            "parseFloat(getComputedStyle(document.querySelector('svg text')).fontSize)"
        )
        sizes.append(page.evaluate(size))
        out = page.evaluate(
            """[...document.querySelectorAll('figure')].flatMap(figure => {
                const box = figure.querySelector('.gv-scroll').firstChild;
                const edge = box.getBoundingClientRect();
                return [...box.querySelectorAll('text')].filter(text => {
                    const at = text.getBoundingClientRect();
                    return at.left < edge.left - 1 || at.right > edge.right + 1;
                }).map(text => text.textContent);
            })"""
        )
        assert not out
    assert sizes == [pytest.approx(9.5), pytest.approx(9.5 * 1.15)]
