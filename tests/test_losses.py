"""Each loss against its formula in float64, its limits, and what it refuses."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap

import gvlib as gv
from gvlib import losses
from gvlib.losses import NotCosineWarning
from gvlib.models import MLP

# ------------------------------------------- the formulas, one example at a time


def nll(z, y):
    """-log softmax(z)_y, from Python floats and math alone."""
    top = max(z)
    return top + math.log(math.fsum(math.exp(v - top) for v in z)) - z[y]


def best_other(f, y):
    return max(v for c, v in enumerate(f) if c != y)


def focal(f, y, n, gamma):
    p = math.exp(-nll(f, y))
    return (1 - p) ** gamma * nll(f, y)


def logit_adjusted(f, y, n, tau):
    return nll([v + tau * math.log(k / sum(n)) for v, k in zip(f, n, strict=True)], y)


def cdt(f, y, n, gamma):
    return nll([v / (max(n) / k) ** gamma for v, k in zip(f, n, strict=True)], y)


def vs(f, y, n, gamma, tau):
    adjusted = [
        (k / max(n)) ** gamma * v + tau * math.log(k / sum(n))
        for v, k in zip(f, n, strict=True)
    ]
    return nll(adjusted, y)


def ldam(f, y, n, max_margin, scale):
    constant = max_margin / max(k**-0.25 for k in n)  # C of the paper
    z = [scale * v for v in f]
    z[y] -= scale * constant * n[y] ** -0.25
    return nll(z, y)


def hinge(f, y, n, margin):
    return max([0.0] + [margin + v - f[y] for c, v in enumerate(f) if c != y])


def squared(f, y, n):
    return sum((v - (c == y)) ** 2 for c, v in enumerate(f)) / len(f)


def polynomial(f, y, n, alpha):
    z = f[y] - best_other(f, y)
    if z > 1:
        return 1 / z**alpha
    return math.log(1 + math.exp(-z)) / math.log(1 + math.exp(-1))


COUNTED = {
    "logit_adjusted": (logit_adjusted, {"tau": 1.2}),
    "cdt": (cdt, {"gamma": 0.3}),
    "vs": (vs, {"gamma": 0.2, "tau": 1.2}),
    "ldam": (ldam, {"max_margin": 0.5, "scale": 30.0}),
}
PLAIN = {
    "cross_entropy": (lambda f, y, n: nll(f, y), {}),
    "focal": (focal, {"gamma": 0.7}),
    "hinge": (hinge, {"margin": 1.5}),
    "squared": (squared, {}),
    "polynomial": (polynomial, {"alpha": 1.5}),
}
FORMULAS = PLAIN | COUNTED
every = pytest.mark.parametrize("name", FORMULAS)


def made(name, classes=4, n=30, seed=0, dtype=torch.float64, spread=3.0):
    """The loss `name` ready for use, with logits, labels, counts and weights."""
    random = torch.Generator().manual_seed(seed)
    f = spread * torch.randn(n, classes, generator=random, dtype=torch.float64)
    if name == "ldam":
        f = f.tanh()  # LDAM's logits are cosines
    y = torch.randint(classes, (n,), generator=random)
    exponents = 6 * torch.rand(classes, generator=random)
    counts = [max(1, round(10**e)) for e in exponents.tolist()]
    weights = (0.1 + torch.rand(classes, generator=random)).tolist()
    settings = dict(FORMULAS[name][1])
    if name in COUNTED:
        settings["counts"] = tuple(counts)
    loss = partial(getattr(losses, name), **settings)
    return loss, f.to(dtype), y, counts, weights


def by_hand(name, f, y, counts):
    formula, settings = FORMULAS[name]
    pairs = zip(f.double().tolist(), y.tolist(), strict=True)
    return torch.tensor(
        [formula(row, label, counts, **settings) for row, label in pairs],
        dtype=torch.float64,
    )


@every
@settings(max_examples=25, deadline=None)
@given(
    classes=st.integers(2, 12),
    n=st.integers(0, 40),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    kind=st.sampled_from([torch.int64, torch.int32, torch.uint8]),
    weighted=st.booleans(),
)
def test_a_loss_is_its_formula(name, classes, n, seed, dtype, kind, weighted):
    loss, f, y, counts, weights = made(name, classes, n, seed, dtype)
    got = loss(f, y.to(kind), weights=weights if weighted else None)
    want = by_hand(name, f, y, counts)
    if weighted:
        want = want * torch.tensor(weights, dtype=torch.float64)[y]
    assert got.shape == (n,)
    assert got.dtype == dtype
    # LDAM multiplies its logits by 30, so that float32's 1e-7 becomes 1e-5 or so.
    tolerance = 1e-10 if dtype == torch.float64 else 3e-5
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_taken_and_kept(name, dtype):
    loss, f, y, counts, _ = made(name, dtype=dtype, spread=1.0)
    got = loss(f, y)
    assert got.dtype == dtype
    want = by_hand(name, f, y, counts)
    torch.testing.assert_close(got.double(), want, rtol=0.1, atol=0.2)


@every
def test_counts_and_weights_come_as_tuple_list_array_or_tensor(name):
    loss, f, y, counts, weights = made(name)
    want = loss(f, y, weights=tuple(weights))
    for kind in (list, np.array, torch.tensor):
        more = {"counts": kind(counts)} if name in COUNTED else {}
        assert torch.equal(loss(f, y, weights=kind(weights), **more), want)


@every
def test_leading_axes_of_any_number_are_taken(name):
    loss, f, y, _, weights = made(name)
    want = loss(f, y, weights=weights).reshape(2, 3, 5)
    got = loss(f.reshape(2, 3, 5, 4), y.reshape(2, 3, 5), weights=weights)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(loss(f[0], y[0]), loss(f, y)[0])


# ------------------------------------------------------------------------- gradients


@every
def test_gradients_are_those_of_finite_differences(name):
    loss, f, y, _, weights = made(name, n=6)
    f.requires_grad_()
    assert torch.autograd.gradcheck(partial(loss, labels=y, weights=weights), (f,))


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "vs", "ldam", "squared"])
def test_smooth_losses_have_second_derivatives(name):
    loss, f, y, *_ = made(name, n=3)
    f.requires_grad_()
    assert torch.autograd.gradgradcheck(partial(loss, labels=y), (f,))


@pytest.mark.parametrize("gamma", [0.0, 0.2, 0.5, 1.0, 2.0, 5.0])
def test_focal_gradient_is_finite_where_the_network_is_certain(gamma):
    f = torch.tensor([[1e4, 0.0], [40.0, 0.0], [0.0, 1e4]], requires_grad=True)
    loss = losses.focal(f, torch.tensor([0, 0, 0]), gamma=gamma)
    (slope,) = torch.autograd.grad(loss.sum(), f)
    assert loss.isfinite().all()
    assert slope.isfinite().all()
    torch.testing.assert_close(loss[2].item(), 1e4)  # certain and wrong: cross-entropy
    torch.testing.assert_close(slope[2], torch.tensor([-1.0, 1.0]))


@every
@pytest.mark.filterwarnings("ignore::gvlib.losses.NotCosineWarning")
@pytest.mark.parametrize("size", [1.0, 1e4])
@pytest.mark.parametrize("counts", [(1, 1_000_000, 50), (1, 1, 1), (10**6,) * 3])
def test_extreme_logits_and_counts_stay_finite(name, size, counts):
    loss, *_ = made(name)
    if name in COUNTED:
        loss = partial(loss, counts=counts)
    corners = [[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
    f = (size * torch.tensor(corners * 3, dtype=torch.float32)).requires_grad_()
    y = torch.arange(3).repeat_interleave(len(corners))
    out = loss(f, y)
    (slope,) = torch.autograd.grad(out.sum(), f)
    assert out.isfinite().all()
    assert slope.isfinite().all()
    assert (out >= 0).all()


# ---------------------------------------------------------------------------- limits


def test_vs_has_the_others_as_limits():
    _, f, y, counts, weights = made("vs")
    run = partial(losses.vs, f, y, counts=counts)
    adjusted = losses.logit_adjusted(f, y, counts=counts, tau=1.3)
    assert torch.equal(run(gamma=0, tau=1.3), adjusted)
    assert torch.equal(
        run(gamma=0.3, tau=0), losses.cdt(f, y, counts=counts, gamma=0.3)
    )
    weighted = losses.cross_entropy(f, y, weights=weights)
    assert torch.equal(run(gamma=0, tau=0, weights=weights), weighted)
    assert torch.equal(run(gamma=0, tau=0), losses.cross_entropy(f, y))


def test_with_equal_counts_only_a_constant_is_added():
    _, f, y, *_ = made("vs")
    want = losses.cross_entropy(f, y)
    torch.testing.assert_close(losses.vs(f, y, counts=(7, 7, 7, 7)), want)


def test_ldam_without_margin_is_cross_entropy_on_scaled_cosines():
    _, f, y, counts, weights = made("ldam")
    got = losses.ldam(f, y, counts=counts, max_margin=0, scale=10, weights=weights)
    want = losses.cross_entropy(10 * f, y, weights=weights)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_ldam_gives_the_rarest_class_the_widest_margin():
    f, counts = torch.zeros(3, 3, dtype=torch.float64), (16, 1, 81)
    loss = losses.ldam(f, torch.arange(3), counts=counts, scale=1.0)
    # at zero logits: log(1 + 2 e^m), so that the margins can be read off
    margin = ((loss.exp() - 1) / 2).log()
    want = torch.tensor([0.25, 0.5, 1 / 6], dtype=torch.float64)
    torch.testing.assert_close(margin, want)


def test_ldam_power_zero_gives_every_class_the_same_margin():
    f, y = torch.zeros(2, 2), torch.arange(2)
    a, b = losses.ldam(f, y, counts=(1, 99), power=0)
    assert a == b


def test_focal_without_focus_is_cross_entropy():
    _, f, y, *_ = made("focal")
    assert torch.equal(losses.focal(f, y, gamma=0), losses.cross_entropy(f, y))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_polynomial_tail_joins_the_body_and_falls(alpha):
    z = torch.tensor([1 - 1e-9, 1.0, 1 + 1e-9], dtype=torch.float64)
    f = torch.stack([z, 0 * z], 1)
    y = torch.zeros(3, dtype=torch.int64)
    got = losses.polynomial(f, y, alpha=alpha)
    torch.testing.assert_close(got, torch.ones_like(z), rtol=0, atol=1e-8)
    z = torch.linspace(-20, 20, 401, dtype=torch.float64)
    f = torch.stack([z, 0 * z], 1)
    got = losses.polynomial(f, torch.zeros(401, dtype=torch.int64), alpha=alpha)
    assert (got.diff() < 0).all()
    at = got[z.sub(20).abs().argmin()]
    torch.testing.assert_close(at.item(), 20.0**-alpha)


def test_of_two_classes_margins_are_differences():
    f = torch.tensor([[1.0, 4.0], [1.0, 4.0]])
    assert losses.margins(f, torch.tensor([0, 1])).tolist() == [-3, 3]


def test_cross_entropy_is_torchs():
    _, f, y, *_ = made("cross_entropy", dtype=torch.float32)
    want = torch.nn.functional.cross_entropy(f, y, reduction="none")
    assert torch.equal(losses.cross_entropy(f, y), want)


# --------------------------------------------------------------------- class weights


def test_weights_have_their_formulas():
    n = (5000, 300, 7)
    raw = losses.inverse_frequency(n, mean=None)
    np.testing.assert_allclose(raw, [1 / k for k in n])
    raw = losses.effective_number(n, 0.999, mean=None)
    np.testing.assert_allclose(raw, [(1 - 0.999) / (1 - 0.999**k) for k in n])


@pytest.mark.parametrize("make", [losses.inverse_frequency, losses.effective_number])
def test_weights_have_mean_one_over_examples_or_classes(make):
    n = (5000, 300, 7)
    over_examples = make(n)
    assert sum(k * w for k, w in zip(n, over_examples.tolist(), strict=True)) == (
        pytest.approx(sum(n))
    )
    assert make(n, mean="classes").mean().item() == pytest.approx(1)
    for weights in (over_examples, make(n, mean="classes")):
        ratios = weights / make(n, mean=None)
        np.testing.assert_allclose(ratios, ratios[0])
    with pytest.raises(ValueError, match='"examples", "classes" or None'):
        make(n, mean="samples")


def test_the_mean_over_examples_is_what_torch_divides_by():
    """On the whole training set, torch's weighted mean is our plain one."""
    _, f, y, *_ = made("cross_entropy", classes=3, n=90)
    y = torch.tensor([0] * 60 + [1] * 25 + [2] * 5)
    w = losses.inverse_frequency((60, 25, 5))
    want = torch.nn.functional.cross_entropy(f, y, weight=5 * w)
    torch.testing.assert_close(losses.cross_entropy(f, y, weights=w).mean(), want)


def test_effective_number_goes_from_no_weights_to_inverse_frequency():
    n = (1_000_000, 30, 1)
    np.testing.assert_array_equal(losses.effective_number(n, 0.0), [1, 1, 1])
    got = losses.effective_number(n, 1 - 1e-12)
    np.testing.assert_allclose(got, losses.inverse_frequency(n), rtol=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.just(0.0) | st.floats(1e-6, 1e6), min_size=1).filter(any))
def test_mean_one_has_mean_one(weights):
    got = losses.mean_one(weights)
    assert got.mean().item() == pytest.approx(1)
    assert [g > 0 for g in got.tolist()] == [w > 0 for w in weights]


def test_mean_one_of_many_rows():
    rows = losses.mean_one([[1.0, 3.0], [5.0, 5.0]])
    np.testing.assert_allclose(rows, [[0.5, 1.5], [1, 1]])


@pytest.mark.parametrize(
    "weights, says",
    [
        ([0.0, 0.0], "sum to zero"),
        ([[1.0, 1.0], [0.0, 0.0]], "sum to zero"),
        ([1.0, -1.0], "not negative"),
        ([1.0, math.nan], "finite"),
        ([], "expected"),
        (3.0, "expected"),
    ],
)
def test_mean_one_refuses(weights, says):
    with pytest.raises(ValueError, match=says):
        losses.mean_one(weights)


# ----------------------------------------------------------- populations and training


@every
def test_vmap_is_the_loop(name):
    loss, f, y, _, weights = made(name)
    loss = partial(loss, weights=weights)
    f, y = f.reshape(5, 6, 4), y.reshape(5, 6)
    want = torch.stack([loss(a, b) for a, b in zip(f, y, strict=True)])
    torch.testing.assert_close(vmap(loss)(f, y), want)
    torch.testing.assert_close(vmap(loss, in_dims=(0, None))(f, y[0])[0], want[0])

    def mean(f, y):
        return loss(f, y).mean()

    slopes = torch.stack([grad(mean)(a, b) for a, b in zip(f, y, strict=True)])
    torch.testing.assert_close(vmap(grad(mean))(f, y), slopes)


@pytest.mark.parametrize("name", COUNTED)
def test_counts_and_weights_may_differ_between_members(name):
    loss, f, y, *_ = made(name)
    f, y = f.reshape(5, 6, 4), y.reshape(5, 6)
    n = torch.arange(1, 21).reshape(5, 4)
    w = n.flip(0) / 7

    def one(f, y, n, w):
        return loss(f, y, counts=n, weights=w)

    want = torch.stack([one(*part) for part in zip(f, y, n, w, strict=True)])
    torch.testing.assert_close(vmap(one)(f, y, n, w), want)


@pytest.mark.parametrize("name", ["vs", "focal", "polynomial"])
def test_a_population_trains_with_it_as_one_network_does(name):
    """A step of SGD by hand, on the mean of the loss, for each member."""
    loss, _, y, _, weights = made(name, n=24)
    loss = partial(loss, weights=weights)
    x = torch.randn(24, 5, generator=torch.Generator().manual_seed(1))
    nets = gv.Population(lambda: MLP(5, 8, 4), {"seed": [0, 1]}, device="cpu")
    data = gv.data.Dataset(x, y, classes=tuple("abcd"))
    runs = gv.train(nets, data, epochs=1, batch=24, lr=0.3, loss=loss)
    for m in range(2):
        net = nets[m]
        slopes = torch.autograd.grad(loss(net(x), y).mean(), list(net.parameters()))
        trained = runs.population[m].parameters()
        for p, slope, got in zip(net.parameters(), slopes, trained, strict=True):
            torch.testing.assert_close(got, p - 0.3 * slope)


@every
@pytest.mark.parametrize("label", [-100, -1, 4])
def test_wrong_labels_are_no_silent_losses_even_inside_vmap(name, label):
    loss, f, y, *_ = made(name)
    y[3] = label
    with pytest.raises(ValueError, match=r"labels run from .* expected 0 to 3"):
        loss(f, y)
    with pytest.raises((RuntimeError, IndexError)):
        vmap(loss)(f[None], y[None])


@pytest.mark.parametrize("name", COUNTED)
def test_wrong_counts_are_refused_inside_vmap(name):
    loss, f, y, *_ = made(name)
    with pytest.raises(ValueError, match="absent from training"):
        vmap(partial(loss, counts=(3, 2, 0, 1)))(f[None], y[None])
    with pytest.raises(ValueError, match=r"counts have shape \(3,\).*4 classes"):
        vmap(grad(lambda f, y: loss(f, y, counts=(3, 2, 1)).sum()))(f[None], y[None])


# --------------------------------------------------------------- what the losses refuse


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("bad", [0, -5, math.nan, math.inf])
def test_counts_that_count_nothing_are_refused(name, bad):
    loss, f, y, *_ = made(name)
    says = r"counts of class 2 .* above 0 .* absent from training"
    with pytest.raises(ValueError, match=says):
        loss(f, y, counts=(3, 1, bad, 2))
    for make in (losses.inverse_frequency, losses.effective_number):
        with pytest.raises(ValueError, match=says):
            make((3, 1, bad, 2))


@every
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_weights_that_are_not_above_zero_are_refused(name, bad):
    loss, f, y, *_ = made(name)
    with pytest.raises(ValueError, match=r"weights of class 1 is .* above 0"):
        loss(f, y, weights=[1.0, bad, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"weights have shape \(2,\)"):
        loss(f, y, weights=[1.0, 1.0])


@every
def test_shapes_and_kinds_that_do_not_fit_are_refused(name):
    loss, f, y, *_ = made(name)
    with pytest.raises(ValueError, match=r"expected \(n, classes\) and \(n,\)"):
        loss(f, y[:-1])
    with pytest.raises(TypeError, match="expected integer class numbers"):
        loss(f, y.double())
    with pytest.raises(TypeError, match="expected integer class numbers"):
        loss(f, y > 0)


NUMBERS = [
    ("focal", {"gamma": -0.1}, "gamma is -0.1"),
    ("focal", {"gamma": math.inf}, "gamma is inf"),
    ("logit_adjusted", {"tau": -1.0}, "tau is -1.0"),
    ("cdt", {"gamma": -1.0}, "gamma is -1.0"),
    ("vs", {"gamma": math.nan}, "gamma is nan"),
    ("vs", {"tau": -0.5}, "tau is -0.5"),
    ("ldam", {"max_margin": -0.5}, "max_margin is -0.5"),
    ("ldam", {"max_margin": 2.5}, "max_margin is 2.5.* from 0 to 2"),
    ("ldam", {"scale": 0.0}, "scale is 0"),
    ("ldam", {"power": -1.0}, "power is -1"),
    ("hinge", {"margin": 0.0}, "margin is 0"),
    ("polynomial", {"alpha": 0.0}, "alpha is 0"),
    ("polynomial", {"alpha": -2.0}, "alpha is -2"),
]


@pytest.mark.parametrize("name, change, says", NUMBERS)
def test_numbers_out_of_range_are_refused(name, change, says):
    loss, f, y, *_ = made(name)
    with pytest.raises(ValueError, match=says):
        loss(f, y, **change)
    with pytest.raises(ValueError, match=says):
        vmap(partial(loss, **change))(f[None], y[None])
    with pytest.raises(TypeError, match="expected a number"):
        loss(f, y, **dict.fromkeys(change, "much"))


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, math.nan])
def test_beta_out_of_range_is_refused(beta):
    with pytest.raises(ValueError, match="beta is"):
        losses.effective_number((1, 2), beta)


@pytest.mark.parametrize("name", ["focal", "hinge", "polynomial"])
def test_losses_that_compare_classes_need_two(name):
    loss, *_ = made(name)
    with pytest.raises(ValueError, match="at least 2 classes"):
        loss(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


def test_ldam_warns_of_logits_that_are_no_cosines():
    f, y = torch.tensor([[0.2, 1.2]]), torch.tensor([0])
    with pytest.warns(NotCosineWarning, match=r'up to 1.2, .*head="cosine"'):
        losses.ldam(f, y, counts=(2, 1))
    with pytest.warns(NotCosineWarning):
        losses.ldam(-f, y, counts=(2, 1))
    with pytest.warns(NotCosineWarning):
        grad(lambda f: losses.ldam(f, y, counts=(2, 1)).sum())(f)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ldam_takes_the_cosines_of_a_network_silently(dtype):
    net = MLP(3, 64, 5, head="cosine").to(dtype)
    f = net(torch.randn(200, 3, dtype=dtype))  # a warning would fail the test
    assert losses.ldam(f, torch.arange(200) % 5, counts=(9, 8, 7, 6, 5)).shape == (200,)


# ------------------------------------------------------- losses that change in training


def test_a_deferred_loss_changes_at_its_share():
    late = losses.Deferred(losses.hinge, losses.squared, at=0.8)
    # 160 of 200 epochs: the 161st starts at progress 160 / 200
    assert losses.current(late, 159 / 200) is losses.hinge
    assert losses.current(late, 160 / 200) is losses.squared
    assert losses.current(losses.hinge, 0.9) is losses.hinge
    nested = losses.Deferred(losses.cross_entropy, late, at=0.1)
    used = [losses.current(nested, t) for t in (0.0, 0.1, 0.9)]
    assert used == losses.stages(nested)
    assert used == [losses.cross_entropy, losses.hinge, losses.squared]


@pytest.mark.parametrize("at", [0, 1, -0.5, 1.5, math.nan])
def test_a_share_outside_training_is_refused(at):
    with pytest.raises(ValueError, match="at is"):
        losses.Deferred(losses.hinge, losses.squared, at=at)


def test_drw_turns_weights_on_and_keeps_the_rest():
    loss, f, y, _, weights = made("ldam")
    late = losses.drw(loss, weights, at=0.5)
    assert torch.equal(losses.current(late, 0.0)(f, y), loss(f, y))
    assert torch.equal(losses.current(late, 0.5)(f, y), loss(f, y, weights=weights))
    with pytest.raises(ValueError, match="weights of class 0"):
        losses.drw(loss, [0.0, 1.0])
