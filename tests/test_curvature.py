"""Products, eigenpairs, density and trace against Hessians written out whole."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import gvlib as gv
from gvlib import curvature
from gvlib.curvature import NotConvergedWarning, density, hessian, lanczos, top, trace
from gvlib.data import Dataset
from gvlib.models import CNN, MLP, ResNet

NETS = {  # name: (make, shape of an input, statistics)
    "mlp": (lambda: MLP(4, 6, 5, 3, activation="tanh"), (4,), None),
    "relu": (lambda: MLP(4, 8, 3), (4,), None),
    "cnn": (lambda: CNN((2, 3), shape=(1, 8, 8), classes=3), (1, 8, 8), None),
    "batchnorm": (
        lambda: ResNet(1, width=1, channels=1, classes=2),
        (1, 4, 4),
        "running",
    ),
    "batch": (lambda: ResNet(1, width=1, channels=1, classes=2), (1, 4, 4), "batch"),
}


def case(name, n=30, dtype=torch.float64):
    """A network and its data."""
    make, shape, statistics = NETS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = make().to(dtype)
        x = torch.randn(n, *shape).to(dtype)
        y = torch.randint(2, (n,))
    return net, Dataset(x, y, name="made"), statistics


def dense(net, data):
    """The Hessian by torch's own functional transforms, in one piece."""
    params = {k: p.detach() for k, p in net.named_parameters()}
    sizes = [p.numel() for p in params.values()]
    net.eval()

    def loss(flat):
        parts = zip(params.items(), flat.split(sizes), strict=True)
        weights = {k: part.view_as(p) for (k, p), part in parts}
        return F.cross_entropy(functional_call(net, weights, (data.x,)), data.y)

    flat = torch.cat([p.flatten() for p in params.values()])
    return torch.func.jacrev(torch.func.jacrev(loss))(flat)


def difference(net, data, v, step=1e-6):
    """H v for a vector v, by central differences of the gradient in training mode.

    For batch statistics, where torch's functional transforms (2.13) are wrong.
    """
    net = copy.deepcopy(net).train()
    params = list(net.parameters())
    base = nn.utils.parameters_to_vector(params).detach()

    def gradient(at):
        nn.utils.vector_to_parameters(at.clone(), params)
        found = torch.autograd.grad(F.cross_entropy(net(data.x), data.y), params)
        return nn.utils.parameters_to_vector(found)

    return (gradient(base + step * v) - gradient(base - step * v)) / (2 * step)


@pytest.fixture(scope="module", params=["mlp", "cnn"])
def known(request):
    """(Hessian operator, its dense matrix) of an MLP and a CNN."""
    net, data, _ = case(request.param)
    return hessian(net, data), dense(net, data)


# --- products -------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False, None])
@pytest.mark.parametrize("name", ["mlp", "relu", "cnn", "batchnorm"])
def test_products_are_those_of_the_dense_hessian(name, keep):
    net, data, statistics = case(name)
    h = hessian(net, data, statistics=statistics, batch=7, keep=keep)
    matrix = dense(net, data)
    assert h.shape == matrix.shape
    v = torch.randn(h.dim, 2, generator=torch.Generator().manual_seed(1)).double()
    for _ in range(2):  # the kept graph serves again
        torch.testing.assert_close(h @ v, matrix @ v, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(h @ v[:, 0], matrix @ v[:, 0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("keep", [True, False])
def test_products_with_batch_statistics_are_differences_of_gradients(keep):
    net, data, statistics = case("batch")
    h = hessian(net, data, statistics=statistics, keep=keep)
    v = torch.randn(h.dim, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(h @ v, difference(net, data, v), rtol=1e-5, atol=1e-6)


def test_the_whole_matrix():
    net, data, _ = case("mlp")
    torch.testing.assert_close(hessian(net, data).dense(), dense(net, data))
    big = hessian(MLP(4, 1000, 3).double(), data)
    with pytest.raises(ValueError, match=r"8,003 x 8,003"):
        big.dense()


def test_the_network_is_copied_and_left_alone():
    net, data, _ = case("mlp")
    h = hessian(net, data)
    v = torch.ones(h.dim).double()
    before = h @ v
    nn.init.zeros_(net.layers[0].weight)
    torch.testing.assert_close(h @ v, before, rtol=0, atol=0)
    assert net.training
    assert all(p.grad is None for p in net.parameters())


def test_graphs_are_kept_where_memory_allows_and_rebuilt_where_not(monkeypatch):
    net, data, _ = case("cnn")
    assert hessian(net, data).keep
    monkeypatch.setattr(curvature, "free_memory", lambda device: 1000)
    assert not hessian(net, data).keep


def test_another_loss():
    """Squared logits of a linear network: the Hessian is known by hand."""
    net = nn.Linear(3, 1, bias=False).double()
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()
    data = Dataset(x, torch.zeros(20).long())
    h = hessian(net, data, loss=lambda z, y: z[:, 0] ** 2 / 2)
    torch.testing.assert_close(h.dense(), x.T @ x / 20)


# --- Lanczos --------------------------------------------------------------------------


def test_top_eigenpairs_are_those_of_the_dense_hessian(known):
    h, matrix = known
    values, vectors = torch.linalg.eigh(matrix)
    found = top(h, 3, tolerance=1e-9)
    np.testing.assert_allclose(found.values, values.flip(0)[:3], rtol=1e-10)
    overlap = (found.vectors * vectors.flip(1)[:, :3]).sum(0).abs()
    np.testing.assert_allclose(overlap, 1, atol=1e-8)
    lowest = top(h, 2, which="smallest", tolerance=1e-9)
    np.testing.assert_allclose(lowest.values, values[:2], rtol=1e-9)
    for value, d in zip(found.values, found.directions, strict=True):
        flat = torch.cat([t.flatten() for t in d.values()])
        torch.testing.assert_close(matrix @ flat, value * flat, rtol=0, atol=1e-7)


def test_residuals_are_what_they_say(known):
    h, matrix = known
    start = torch.randn(h.dim, generator=torch.Generator().manual_seed(0)).double()
    found = lanczos(h, start, 12, vectors=True)
    off = matrix @ found.vectors - found.vectors * found.values
    torch.testing.assert_close(off.norm(dim=0), found.residuals, rtol=1e-6, atol=1e-10)
    assert found.weights.sum() == pytest.approx(1)
    overlap = found.vectors.T @ start / start.norm()
    torch.testing.assert_close(found.weights, overlap**2, rtol=1e-8, atol=1e-12)


def test_no_ghosts_after_many_steps():
    """A spectrum that brings ghosts without re-orthogonalization (float32)."""
    values = torch.cat([torch.linspace(0, 1, 190), torch.logspace(1, 4, 10)])
    found = lanczos(lambda v: values * v, torch.ones(200), 150)
    for value in values[-10:]:  # each found once
        near = (found.values - value).abs() < 1e-3 * value
        assert near.sum() == 1
    assert len(found.values) == 150


def test_lanczos_stops_where_the_space_closes():
    values = torch.tensor([1.0, 1.0, 3.0, 3.0, 5.0]).double()
    found = lanczos(lambda v: values * v, torch.ones(5).double(), 5)
    np.testing.assert_allclose(found.values, [1, 3, 5])
    np.testing.assert_allclose(found.weights, [0.4, 0.4, 0.2])
    zero = lanczos(lambda v: 0 * v, torch.ones(5), 5)
    assert zero.values.tolist() == [0]


def test_too_few_steps_are_said():
    net, data, _ = case("mlp")
    with pytest.warns(NotConvergedWarning, match="after 3 steps"):
        top(hessian(net, data), 2, steps=3, tolerance=1e-12)


def test_a_top_direction_is_the_sharpest_line():
    net, data, _ = case("mlp")
    h = hessian(net, data)
    found = top(h)
    near = {"span": 0.01, "points": 3}
    sharp = gv.landscape.line(net, found.directions[0], data, **near).loss["data"]
    bend = (sharp[0] - 2 * sharp[1] + sharp[2]) / 0.01**2
    assert bend == pytest.approx(found.values[0], rel=1e-3)
    random = gv.landscape.direction(net, seed=0, normalize="unit", biases="random")
    flat = gv.landscape.line(net, random, data, **near).loss["data"]
    assert flat[0] - 2 * flat[1] + flat[2] < 0.5 * bend * 0.01**2


def test_sharpness_of_members_is_that_of_each():
    pop = gv.Population(NETS["relu"][0], gv.grid(seed=range(3)), device="cpu")
    pop = pop.to(dtype=torch.float64)
    data = case("relu")[1]
    labels = torch.stack([data.y, 1 - data.y, data.y])
    found = gv.curvature.sharpness(pop, data.replace(y=labels), tolerance=1e-8)
    for i in range(3):
        values = torch.linalg.eigvalsh(dense(pop[i], data.replace(y=labels[i])))
        assert found[i] == pytest.approx(float(values[-1]), rel=1e-8)
    alone = gv.curvature.sharpness(pop[0], data, tolerance=1e-8)
    assert alone.shape == ()
    assert alone == pytest.approx(found[0])


def test_float32_reaches_its_tolerance():
    net, data, _ = case("cnn")
    exact = torch.linalg.eigvalsh(dense(net, data))[-1]
    single = data.replace(x=data.x.float())
    assert gv.curvature.sharpness(net.float(), single) == pytest.approx(
        float(exact), rel=1e-4
    )


# --- trace and density ----------------------------------------------------------------


def test_trace_and_its_variance(known):
    h, matrix = known
    values = [trace(h, 2, seed=s).mean for s in range(100)]
    exact = float(matrix.trace())
    spread = 2 * (matrix.pow(2).sum() - matrix.diag().pow(2).sum()) / 2
    error = math.sqrt(float(spread) / 100)
    assert abs(np.mean(values) - exact) < 4 * error
    assert np.var(values, ddof=1) == pytest.approx(float(spread), rel=0.5)
    found = trace(h, 200)
    assert found.low < exact < found.high
    assert found.n == 200


def test_trace_of_a_diagonal_is_exact():
    net = nn.Linear(3, 1, bias=False).double()
    data = Dataset(
        torch.diag(torch.tensor([1.0, 2, 3])).double(), torch.zeros(3).long()
    )
    found = trace(hessian(net, data, loss=lambda z, y: z[:, 0] ** 2), 2)
    assert found.mean == pytest.approx(2 * 14 / 3)


def test_density_is_that_of_the_dense_spectrum(known):
    h, matrix = known
    values = torch.linalg.eigvalsh(matrix).numpy()
    width = (values[-1] - values[0]) / 10
    found = density(h, steps=30, probes=30, width=width)
    bumps = np.exp(-(((found.grid[:, None] - values) / width) ** 2) / 2)
    exact = bumps.mean(1) / (width * math.sqrt(2 * math.pi))
    step = found.grid[1] - found.grid[0]
    assert found.density.sum() * step == pytest.approx(1, abs=1e-3)
    assert np.abs(found.density - exact).sum() * step < 0.1  # total variation x 2
    mean = (found.nodes * found.weights).sum()
    assert mean == pytest.approx(values.mean(), abs=0.1 * np.abs(values).mean())
    assert found.weights.sum() == pytest.approx(1)


def test_density_of_few_steps_keeps_the_low_moments(known):
    """Lanczos of k steps gives the moments below 2 k exactly."""
    h, _ = known
    few, all_ = (density(h, steps=s, probes=2, seed=5) for s in (6, 20))
    for power in range(12):
        a, b = ((d.weights * d.nodes**power).sum() for d in (few, all_))
        assert a == pytest.approx(b, rel=1e-6, abs=1e-12)
    assert few.width == pytest.approx(np.ptp(few.nodes) / 100)


def test_density_where_all_eigenvalues_are_equal():
    net = nn.Linear(3, 1, bias=False).double()
    data = Dataset(torch.eye(3).double(), torch.zeros(3).long())
    found = density(hessian(net, data, loss=lambda z, y: z[:, 0] ** 2 * 1.5))
    assert found.grid[found.density.argmax()] == pytest.approx(1, abs=1e-3)


# --- errors ---------------------------------------------------------------------------


def test_wrong_arguments_are_refused():
    net, data, _ = case("mlp")
    h = hessian(net, data)
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(83,\)"):
        h @ torch.ones(3)
    with pytest.raises(ValueError, match="k is 0"):
        top(h, 0)
    with pytest.raises(ValueError, match="which is 'both'"):
        top(h, which="both")
    with pytest.raises(ValueError, match="steps is 0"):
        lanczos(h, torch.ones(h.dim), 0)
    with pytest.raises(ValueError, match="not zero"):
        lanczos(h, torch.zeros(h.dim), 3)
    with pytest.raises(ValueError, match="probes is 1"):
        trace(h, 1)
    with pytest.raises(ValueError, match="probes is 0"):
        density(h, probes=0)
    with pytest.raises(ValueError, match="width is -1"):
        density(h, width=-1)
    with pytest.raises(ValueError, match="batch is 0"):
        hessian(net, data, batch=0)


def test_networks_and_data_that_do_not_fit_are_refused():
    net, data, _ = case("mlp")
    pop = gv.Population(NETS["mlp"][0], {"seed": [0]}, device="cpu")
    with pytest.raises(TypeError, match="sharpness"):
        hessian(pop, data)
    with pytest.raises(ValueError, match=r"cannot take inputs of shape \(1, 8, 8\)"):
        hessian(net, case("cnn")[1])
    with pytest.raises(ValueError, match="choose statistics"):
        hessian(case("batchnorm")[0], case("batchnorm")[1])
    nn.init.constant_(net.layers[0].weight, math.nan)
    with pytest.raises(ValueError, match="not finite"):
        top(hessian(net, data))
