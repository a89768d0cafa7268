"""What the page on long tails defines, against independent computations."""

import numpy as np
import pandas as pd
import pytest
import torch
from page_parts import definitions

import gvlib as gv

SMALL = {"N_MAX": 40, "FACTOR": 10, "SEEDS": range(2), "SHRINK": 4}
CONSTANTS = {
    "IMBALANCE",
    "KNOWN",
    "METHODS",
    "PAPERS",
    "RATES",
    "SGD",
    "SHORT, USUAL, LONG",
}


def small_set():
    """What the page's definitions need, on a small made set."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(600) % 10
    x = torch.randn(600, 1, 4, 4, generator=random) + y[:, None, None, None]
    made = gv.data.Dataset(x, y)
    counts = {"step": gv.data.step_counts(40, 10, 10)}
    return SMALL | {"pool": made[:500], "test": made[500:], "counts": counts}


page = definitions("imbalance/long-tails", CONSTANTS, small_set())


@pytest.mark.parametrize(("kind", "rare"), [("step", 4), ("long-tailed", 4)])
def test_every_seed_draws_its_own_pictures(kind, rare):
    first, second = page["draw"](kind)
    counts = gv.data.class_counts(first)
    assert counts == gv.data.class_counts(second)
    assert (counts[0], counts[-1]) == (40, rare)
    assert not torch.equal(first.x, second.x)


def test_methods_have_a_rate_for_every_length_they_are_trained_for():
    assert set(page["RATES"]) == set(page["METHODS"])
    assert all(len(rates) in (2, 3) for rates in page["RATES"].values())
    lengths = (page["SHORT"], page["USUAL"], page["LONG"])
    assert list(lengths) == sorted(lengths)
    for method, rates in page["RATES"].items():
        found = [page["rate"](method, epochs) for epochs in lengths]
        assert found == [*rates, rates[-1]][:3]


def test_re_sampling_gets_as_many_updates_as_the_others():
    parts = page["draw"]("step")
    plain = page["fit"]("cross-entropy", parts, 20).records["step"].max()
    more = page["fit"]("re-sampling", parts, 20).records["step"].max()
    assert abs(more - plain) <= 0.1 * plain


@pytest.mark.parametrize("method", page["METHODS"])
def test_accuracy_by_class_is_that_of_each_network(method):
    parts = page["draw"]("long-tailed")
    population = page["fit"](method, parts, 5).population
    frame = page["by_class"](population, parts).set_index(["seed", "number"])
    for seed, part in enumerate(parts):
        net = population[seed]
        for data, column in ((part, "train_accuracy"), (page["test"], "test_accuracy")):
            right = net(data.x).argmax(-1) == data.y
            for c in range(10):
                expected = right[data.y == c].double().mean().item()
                assert frame.loc[(seed, c), column] == pytest.approx(expected)


def test_balanced_accuracy_lies_half_way_between_head_and_tail():
    keys = gv.grid(seed=range(3), number=range(10))
    values = np.random.default_rng(0).random(30)
    frame = keys.assign(test_accuracy=values, method="a", imbalance="step", epochs=5)
    found = page["summary"](frame).set_index("seed")
    for seed, rows in enumerate(values.reshape(3, 10)):
        assert found.loc[seed, "head"] == pytest.approx(rows[:5].mean())
        assert found.loc[seed, "tail"] == pytest.approx(rows[5:].mean())
        assert found.loc[seed, "balanced"] == pytest.approx(rows.mean())


def test_differences_are_paired_by_seed():
    rows = [("cross-entropy", s, 0.1 * s) for s in (2, 0, 1)]
    rows += [("VS", s, 0.1 * s + 0.05) for s in (1, 2, 0)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "balanced"])
    page["scores"] = frame.assign(imbalance="step", epochs=page["USUAL"])
    mine, theirs = page["against"]("VS", "step")
    np.testing.assert_allclose(mine - theirs, 0.05)
    found = page["gain"]("VS", "step")
    assert (found.mean, found.low) == (pytest.approx(5), pytest.approx(5))


def test_the_papers_numbers_agree_where_the_page_has_them_twice():
    table = page["PAPERS"]
    for method, (paper, long_tailed, step) in page["KNOWN"].items():
        row = table.get(method) or table[f"{method}, γ = 0.2"]
        at = 0 if paper == "cao2019" else 2
        before = table["cross-entropy"][at : at + 2]
        assert (long_tailed[0], step[0]) == before
        assert (long_tailed[1], step[1]) == row[at : at + 2]
