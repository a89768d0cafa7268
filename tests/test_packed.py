"""Packed arrays: errors within the stated bounds, and a browser reads the same."""

import base64
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gvlib._packed import fine_step, pack, unpack

ROOT = Path(__file__).resolve().parent.parent
floats = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(values=arrays(np.float32, st.integers(0, 40), elements=floats))
def test_each_value_is_near(values):
    found = unpack(pack(values, bits=13))
    special = ~np.isfinite(values)
    assert np.array_equal(found[special], values[special], equal_nan=True)
    some = np.isfinite(found) & (np.abs(values) > 1e-37)  # float32's normal numbers
    error = np.abs(found[some] - values[some])
    assert (error <= np.abs(values[some]) * 2.0**-14).all()
    too_large = np.isinf(found) & ~special  # rounded up, past the largest float32
    assert (np.abs(values[too_large]) > 3.4e38).all()


@pytest.mark.parametrize("step", [2.0**-11, 0.25])
def test_with_a_step_the_error_is_half_of_it(step):
    values = np.random.default_rng(0).random(1000).astype("f4") * 2 - 1
    found = unpack(pack(values, bits=13, step=step))
    assert np.abs(found - values).max() <= step / 2 * 1.0001
    assert np.allclose(found / step, np.round(found / step), atol=1e-4)
    assert np.abs(found - values).max() > step / 4  # it did round


def test_a_smooth_picture_becomes_small():
    x = np.linspace(-3, 3, 64)
    values = 1 / (1 + np.exp(-x[:, None] * 2 - np.sin(x))).astype("f4")
    plain = len(base64.b64encode(values.tobytes()))
    assert len(pack(values, step=fine_step(0, 1))) < plain / 3


def test_a_browser_reads_the_same(browser, serve, tmp_path):
    values = np.array([0, 1, -2.5, 1 / 3, 1e30, np.inf, np.nan, 7e-5], "f4")
    host = (tmp_path / "host.js").write_text
    source = (ROOT / "gvlib/static/host.js").read_text("utf-8")
    host(source + "\nexport { unpacked };\n", "utf-8")
    (tmp_path / "index.html").write_text("<!doctype html><title>t</title>")
    page = browser.new_page()
    page.goto(f"{serve(tmp_path)}/index.html")
    read = """async (text) => {
        const { unpacked } = await import("./host.js");
        const view = await unpacked(text);
        return Array.from({ length: view.byteLength / 4 },
            (_, k) => view.getUint32(4 * k, true)); }"""
    found = page.evaluate(read, pack(values))
    page.close()
    assert found == unpack(pack(values)).view("<u4").tolist()
