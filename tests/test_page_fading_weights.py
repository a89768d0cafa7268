"""What the page on class weights defines, against independent computations."""

import math

import numpy as np
import pytest
import torch
from page_parts import definitions
from scipy.optimize import minimize

CONSTANTS = {
    "COSTS",
    "DRAWS",
    "EPOCHS",
    "N",
    "POINTS",
    "MOON_KINDS",
    "WEIGHTS",
    "moons",
}
page = definitions("importance-weighting/fading-weights", CONSTANTS)


@pytest.mark.parametrize("seed", range(4))
def test_max_margin_is_the_support_vector_machine(seed):
    points = page["signed"](*page["discs"](seed)).numpy()
    found = page["max_margin"](points).numpy()
    shortest = minimize(
        lambda w: w @ w,
        np.array([1.0, 1.0, 0.0]),
        jac=lambda w: 2 * w,
        constraints={"type": "ineq", "fun": lambda w: points @ w - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    assert shortest.success
    assert found == pytest.approx(shortest.x / np.linalg.norm(shortest.x), abs=1e-5)
    assert (points @ found).min() == pytest.approx(1 / np.linalg.norm(shortest.x))


def test_discs_flip_as_many_signs_as_asked():
    x, sign = page["discs"](3)
    again, flipped = page["discs"](3, 10)
    assert torch.equal(x, again)
    assert (sign != flipped).sum() == 10
    assert sign.sum() == 0


@pytest.mark.parametrize("normalized", [False, True])
def test_a_step_of_descent_is_the_gradient(normalized):
    points = page["signed"](*page["discs"](0))[None]
    costs = torch.linspace(0.5, 2, points.shape[1], dtype=torch.float64)[None, None]
    path = page["descend"](points, costs, 50, 0.3, normalized)
    w = path[10].clone().requires_grad_()
    loss = (costs * torch.log1p(torch.exp(-(w @ points.mT)))).mean()
    (downhill,) = torch.autograd.grad(-(loss.log() if normalized else loss), w)
    step = min(t for t in path if t > 10)
    assert step == 11
    torch.testing.assert_close(path[step], w.detach() + 0.3 * downhill)


def test_normalized_descent_forgets_the_weights():
    _, points, path = page["planes"](2000, lr=0.1, normalized=True)
    w = path[max(path)]
    apart = page["degrees"](w[:, 2], w[:, 0])
    assert apart.shape == (10,)
    assert (apart < page["degrees"](path[1][:, 2], path[1][:, 0]) / 10).all()
    widest = torch.stack([page["max_margin"](p.numpy()) for p in points])
    assert page["degrees"](w[:, 0], widest).max() < 3


def test_degrees_at_known_angles():
    u = torch.tensor([[1.0, 0, 0], [2, 0, 0], [1, 0, 0]], dtype=torch.float64)
    v = torch.tensor([[0.0, 3, 0], [5, 0, 0], [1, 1e-7, 0]], dtype=torch.float64)
    known = [90, 0, math.degrees(1e-7)]
    assert page["degrees"](u, v) == pytest.approx(known, rel=1e-6)


def test_training_sets_differ_by_seed_and_not_by_weight():
    n = page["N"]
    data = page["gv"].data
    y = torch.arange(2 * n) % 2
    page["pool"] = data.Dataset(torch.arange(2.0 * n)[:, None], y)
    examples = page["examples"]
    light, heavy = examples(1 / 64, 0, "none"), examples(64, 0, "none")
    assert torch.equal(light.x, heavy.x)
    assert not torch.equal(light.x, examples(64, 1, "none").x)
    assert data.class_counts(light) == (n // 2, n // 2)
    few = round(n / 65)
    assert data.class_counts(examples(64, 0, "sub-sampling")) == (few, n - few)
    assert data.class_counts(examples(1 / 64, 0, "sub-sampling")) == (n - few, few)
    noisy = examples(1, 0, "label noise")
    assert torch.equal(noisy.x, examples(1, 0, "none").x)
    changed = (noisy.y != examples(1, 0, "none").y).float().mean().item()
    assert changed == pytest.approx(0.1, abs=0.05)  # half of a fifth hit the true one


@pytest.mark.parametrize("kind", page["MOON_KINDS"])
@pytest.mark.parametrize("weight", [1 / 64, 1.0, 8.0])
def test_moons_are_weighted_thinned_or_flipped(kind, weight):
    y, weights = page["moon_examples"](kind, weight)
    true = page["moons"].y
    if kind == "sub-sampling":
        ratio = min(weight, 1 / weight)
        kept = [int(weights[true == c].sum()) for c in (0, 1)]
        assert min(kept) == max(1, round(60 * ratio))
        assert max(kept) == 60
        assert set(weights.tolist()) <= {0.0, 1.0}
        return
    assert torch.equal(weights, torch.where(y == 1, weight, 1.0))
    share = (y != true).float().mean().item()
    assert (0.02 < share < 0.2) if kind == "label noise" else share == 0
