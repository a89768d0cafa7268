"""Directions, surfaces, planes, radii and volumes against what they should be."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gvlib as gv
from gvlib import _points
from gvlib.data import Dataset
from gvlib.models import CNN, MLP, ResNet

L = gv.landscape
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


class Tied(nn.Module):
    """Uses its first layer's weights again by hand: they cannot be computed ahead."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 3)])

    def forward(self, x):
        h = torch.tanh(self.layers[0](x))
        return self.layers[1](h @ self.layers[0].weight)


class Fed(nn.Module):
    """Its first linear layer does not take the data but what parameters make of it."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6, 1))
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x * self.gain[:, 0])


class Twice(nn.Module):
    """Calls one layer twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(torch.relu(self.a(x)))))


NETS = {  # name: (make, shape of an input, statistics)
    "mlp": (lambda: MLP(6, 8, 5, 3), (6,), None),
    "no bias": (lambda: MLP(6, 8, 3, bias=False), (1, 2, 3), None),
    "one layer": (lambda: nn.Linear(6, 3), (6,), None),
    "sequential": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)
        ),
        (6,),
        None,
    ),
    "dropout": (lambda: MLP(6, 8, 3, dropout=0.5), (6,), None),
    "tied": (Tied, (6,), None),
    "fed": (Fed, (6,), None),
    "twice": (Twice, (6,), None),
    "cnn": (lambda: CNN((3, 4), shape=(1, 8, 8), classes=3), (1, 8, 8), None),
    "batchnorm": (
        lambda: ResNet(1, width=2, channels=1, classes=3),
        (1, 8, 8),
        "running",
    ),
    "batchnorm mlp": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)),
        (6,),
        "running",
    ),
    "batch mlp": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)),
        (6,),
        "batch",
    ),
    "batch": (lambda: ResNet(1, width=2, channels=1, classes=3), (1, 8, 8), "batch"),
}


def make_set(shape, n=50, classes=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=g).to(dtype)
    return Dataset(x, torch.randint(classes, (n,), generator=g), name=f"set {seed}")


def build(make, seed=0, dtype=torch.float64):
    """A network with all its parameters and statistics away from their defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make().to(dtype)
        for p in net.parameters():
            p.data += 0.1 * torch.randn_like(p)
        for name, b in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                b += 0.3 * torch.rand_like(b)
    return net


def moved(net, *steps):
    """A copy of net at theta + sum of c * d, set by hand."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for name, p in [*net.named_parameters(), *net.named_buffers()]:
            for c, d in steps:
                if name in d:
                    p += c * d[name]
    return net


def evaluated(net, data, statistics=None, batch=None):
    """Mean loss and accuracy as a plain loop has them."""
    net = net.eval()
    if statistics == "batch":
        for m in net.modules():
            if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
                m.train()
    with torch.no_grad():
        parts = [net(x) for x in data.x.split(batch or len(data))]
    logits = torch.cat(parts)
    hits = (logits.argmax(1) == data.y).double().mean()
    return F.cross_entropy(logits, data.y).item(), hits.item()


# --- directions -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "cnn", "batchnorm"])
def test_filter_normalization_is_the_written_out_formula(name):
    net = build(NETS[name][0])
    d = L.direction(net, seed=3)
    raw = L.direction(net, seed=3, normalize=None)
    for key, w in net.named_parameters():
        if w.dim() == 1:  # biases, BatchNorm's scales and shifts
            assert d[key].abs().max() == 0
            continue
        for row in range(len(w)):  # one filter after another, as in the paper
            g, own = raw[key][row], w[row].detach()
            scale = own.pow(2).sum().sqrt() / (g.pow(2).sum().sqrt() + 1e-10)
            torch.testing.assert_close(d[key][row], g * scale, rtol=1e-12, atol=0)


def test_random_numbers_of_a_direction_are_standard_normal_and_follow_the_seed():
    net = MLP(100, 100, 10)
    first, again, other = (L.direction(net, seed=s, normalize=None) for s in (1, 1, 2))
    assert torch.equal(first["layers.0.weight"], again["layers.0.weight"])
    numbers = first["layers.0.weight"].flatten()
    assert abs(numbers.mean()) < 0.04  # 4 standard errors of 10,000 numbers
    assert abs(numbers.std() - 1) < 0.03
    cosine = F.cosine_similarity(numbers, other["layers.0.weight"].flatten(), dim=0)
    assert abs(cosine) < 0.04


def test_other_scales_and_other_ways_with_biases():
    net = build(NETS["batchnorm"][0])
    weights = dict(net.named_parameters())
    layer = L.direction(net, seed=0, normalize="layer")
    for key, w in weights.items():
        if w.dim() > 1:
            assert layer[key].norm().item() == pytest.approx(w.norm().item())
    unit = L.direction(net, seed=0, normalize="unit", biases="random")
    length = sum(float(d.pow(2).sum()) for d in unit.values()) ** 0.5
    assert length == pytest.approx(1)
    copied = L.direction(net, seed=0, biases="copy")
    assert torch.equal(copied["linear.bias"], weights["linear.bias"])
    random = L.direction(net, seed=0, biases="random")["norm.weight"]
    assert random.norm().item() == pytest.approx(weights["norm.weight"].norm().item())
    # not each entry for itself, which would leave only signs to chance
    assert not torch.allclose(random.abs(), weights["norm.weight"].abs())


def test_members_of_a_population_share_random_numbers_not_scales():
    pop = gv.Population(NETS["mlp"][0], gv.grid(seed=[5, 6]), device="cpu")
    d = L.direction(pop, seed=1)
    for i in range(2):
        alone = L.direction(pop[i], seed=1)
        for key in alone:
            torch.testing.assert_close(d[key][i], alone[key])
    assert not torch.equal(d["layers.0.weight"][0], d["layers.0.weight"][1])


def test_unknown_choices_and_things_are_refused():
    net = MLP(6, 8, 3)
    with pytest.raises(ValueError, match="normalize is 'filters'"):
        L.direction(net, seed=0, normalize="filters")
    with pytest.raises(ValueError, match="biases is 'no'"):
        L.direction(net, seed=0, biases="no")
    with pytest.raises(TypeError, match="got a OrderedDict, expected a torch network"):
        L.direction(net.state_dict(), seed=0)
    with pytest.raises(ValueError, match="no parameters"):
        L.direction(nn.ReLU(), seed=0)


# --- lines and surfaces ---------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_a_surface_is_what_one_by_one_evaluation_gives(name):
    make, shape, statistics = NETS[name]
    net = build(make)
    sets = {"train": make_set(shape), "test": make_set(shape, n=33, seed=1)}
    one, two = (L.direction(net, seed=s, biases="random") for s in (0, 1))
    options = {"statistics": statistics, "batch": 20, "span": ((-1, 1), (-0.5, 0.7))}
    found = L.surface(net, one, two, sets, points=4, chunk=3, **options)
    assert (found.a[0], found.a[-1], found.b[0], found.b[-1]) == (-1, 1, -0.5, 0.7)
    for i, b in enumerate(found.b):
        for j, a in enumerate(found.a):
            there = moved(net, (a, one), (b, two))
            for key, data in sets.items():
                loss, accuracy = evaluated(copy.deepcopy(there), data, statistics, 20)
                assert abs(found.loss[key][i, j] - loss) < 1e-10
                assert abs(found.accuracy[key][i, j] - accuracy) < 1e-10
    assert found.holes == {"train": 0, "test": 0}


def test_the_network_itself_is_left_alone_and_its_gradients_too():
    net = build(NETS["batch"][0]).train()
    before = copy.deepcopy(net.state_dict())
    data = make_set((1, 8, 8))
    L.line(net, L.direction(net, seed=0), data, points=3, statistics="batch")
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    "name, fast", [("mlp", True), ("sequential", True), ("one layer", True),
                   ("tied", False), ("fed", False), ("twice", False)]
)  # fmt: skip
def test_the_first_layer_is_computed_once_where_that_is_right(name, fast):
    net, data = build(NETS[name][0]), make_set((6,))
    weights = dict(net.state_dict())
    skeleton = _points.with_statistics(net, None)
    at = _points.Evaluator(skeleton, weights, data, gv.losses.cross_entropy)
    assert (at.first is not None) is fast


class Forked(nn.Module):
    """What its convolution gives goes to the norm, and past it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        h = self.conv(x)
        return (h + self.norm(h)).mean((2, 3))


@pytest.mark.parametrize(
    "make, statistics, folds",
    [
        (NETS["batchnorm"][0], "running", 7),
        (NETS["batchnorm"][0], "batch", 0),
        (NETS["cnn"][0], None, 0),
        (Forked, "running", 0),
    ],
)
def test_norms_are_taken_into_convolutions_where_that_is_right(make, statistics, folds):
    net, data = build(make), make_set((1, 8, 8))
    skeleton = _points.with_statistics(net, statistics)
    at = _points.Evaluator(
        skeleton, dict(net.state_dict()), data, gv.losses.cross_entropy
    )
    assert len(at.folds) == folds
    found = L.line(net, L.direction(net, seed=0), data, points=3, statistics=statistics)
    batched = evaluated(copy.deepcopy(net), data, statistics)[0]
    assert found.loss["data"][1] == pytest.approx(batched, abs=1e-10)


@pytest.mark.parametrize("device", DEVICES)
def test_float32_is_within_its_tolerance(device):
    net, data = build(NETS["mlp"][0], dtype=torch.float64), make_set((6,))
    single = copy.deepcopy(net).float().to(device)
    lines = [
        L.line(n, L.direction(net, seed=0) if n is net else
               {k: d.float().to(device) for k, d in L.direction(net, seed=0).items()},
               data, points=21)
        for n in (net, single)
    ]  # fmt: skip
    np.testing.assert_allclose(
        lines[1].loss["data"], lines[0].loss["data"], rtol=5e-6, atol=1e-6
    )


def test_bf16_is_within_the_stated_tolerance():
    net = build(NETS["cnn"][0], dtype=torch.float32)
    data, d = make_set((1, 8, 8), dtype=torch.float32), L.direction(net, seed=0)
    exact, rough = (
        L.line(net, d, data, points=11, precision=p) for p in ("float32", "bf16")
    )
    off = np.abs(rough.loss["data"] - exact.loss["data"])
    assert 0 < off.max() < 1e-2 * exact.loss["data"].max()
    assert rough.how == "computed in bfloat16"


def test_surfaces_of_a_population_are_those_of_its_members():
    pop = gv.Population(NETS["mlp"][0], gv.grid(seed=[5, 6]), device="cpu")
    x = make_set((6,), dtype=torch.float32)
    labels = torch.stack([x.y, 2 - x.y])
    sets = {"train": x.replace(y=labels), "test": x}
    one, two = (L.direction(pop, seed=s) for s in (0, 1))
    found = L.surface(pop, one, two, sets, points=3)
    assert found.loss["train"].shape == (2, 3, 3)
    for i in range(2):
        pick = ({k: t[i] for k, t in d.items()} for d in (one, two))
        alone = L.surface(pop[i], *pick, x.replace(y=labels[i]), points=3)
        np.testing.assert_allclose(found.loss["train"][i], alone.loss["data"], 1e-5)
    frame = found.records
    assert len(frame) == 18
    assert list(frame)[:5] == ["member", "seed", "a", "b", "train_loss"]
    row = frame.query("member == 1 and a == 1 and b == -1").iloc[0]
    assert row["test_loss"] == found.loss["test"][1, 0, 2]


def test_records_of_a_line_draw_as_curves():
    pop = gv.Population(NETS["mlp"][0], gv.grid(seed=range(3)), device="cpu")
    data = make_set((6,), dtype=torch.float32)
    found = L.line(pop, L.direction(pop, seed=0), {"train": data}, points=5, span=0.5)
    axes = gv.plot.curves(found, x="t", y="train_loss")
    middle = axes.lines[0].get_ydata()
    np.testing.assert_allclose(middle, found.loss["train"].mean(0))


@pytest.mark.parametrize("name", ["mlp", "batchnorm"])
def test_interpolation_between_two_networks(name):
    make, shape, statistics = NETS[name]
    a, b = build(make, 0), build(make, 1)
    data = make_set(shape)
    found = L.interpolation(a, b, data, points=5, statistics=statistics)
    assert found.t.tolist() == [-0.5, 0, 0.5, 1, 1.5]
    assert found.loss["data"][1] == pytest.approx(evaluated(a, data)[0], abs=1e-10)
    assert found.loss["data"][3] == pytest.approx(evaluated(b, data)[0], abs=1e-10)
    half = copy.deepcopy(a)
    both = a.state_dict(), b.state_dict()
    mean = {
        k: (v + both[1][k]) / 2 if v.is_floating_point() else v
        for k, v in both[0].items()
    }
    half.load_state_dict(mean)
    assert found.loss["data"][2] == pytest.approx(evaluated(half, data)[0], abs=1e-10)


def test_points_that_are_not_finite_are_holes_and_counted():
    net, data = build(NETS["mlp"][0]), make_set((6,))
    d = {k: 1e200 * v for k, v in L.direction(net, seed=0).items()}
    found = L.line(net, d, {"train": data}, points=5)
    assert found.holes == {"train": 4}
    assert np.isnan(found.loss["train"]).tolist() == [True, True, False, True, True]
    assert np.isnan(found.accuracy["train"]).sum() == 4


def test_a_spline_states_an_error_that_holds():
    net, data = build(NETS["mlp"][0]), make_set((6,))
    one, two = (L.direction(net, seed=s) for s in (0, 1))
    exact = L.surface(net, one, two, data, points=31)
    drawn = L.surface(net, one, two, data, points=31, spline=11)
    error = drawn.spline_error["data"]
    off = np.abs(drawn.loss["data"] - exact.loss["data"])
    assert 0 < error["max"] <= off.max()  # of some points, so below that of all
    assert off.max() < 5 * error["max"]
    assert off.max() < 0.05 * error["range"]
    np.testing.assert_allclose(
        drawn.loss["data"][::3, ::3], exact.loss["data"][::3, ::3]
    )
    assert "11 × 11" in drawn.how
    assert f"{error['max']:.1g}" in drawn.how
    assert exact.spline_error is None


def test_a_spline_with_a_hole_or_too_few_points_is_refused():
    net, data = build(NETS["mlp"][0]), make_set((6,))
    one, two = (L.direction(net, seed=s) for s in (0, 1))
    for wrong in (3, 9, 2.5):
        with pytest.raises(ValueError, match="give a whole number of at least 4"):
            L.surface(net, one, two, data, points=9, spline=wrong)
    far = {k: 1e200 * v for k, v in one.items()}
    with pytest.raises(ValueError, match="a spline cannot cross holes"):
        L.surface(net, far, two, data, points=9, spline=5)


def test_directions_that_do_not_fit_are_refused_by_name():
    net, data = MLP(6, 8, 3), make_set((6,), dtype=torch.float32)
    d = L.direction(net, seed=0)
    other = L.direction(MLP(6, 9, 3), seed=0)
    with pytest.raises(ValueError, match=r"\(9, 6\) for 'layers.0.weight'.*\(8, 6\)"):
        L.line(net, other, data)
    with pytest.raises(ValueError, match=r"nothing for 'layers\.1\.bias'"):
        L.line(net, {k: v for k, v in d.items() if k != "layers.1.bias"}, data)
    with pytest.raises(ValueError, match="'more' where the network has no such"):
        L.line(net, d | {"more": torch.zeros(1)}, data)
    with pytest.raises(ValueError, match="NaN or infinite"):
        L.line(net, {k: v * math.nan for k, v in d.items()}, data)
    pop = gv.Population(lambda: MLP(6, 8, 3), {"seed": [0, 1]}, device="cpu")
    with pytest.raises(ValueError, match="not one for each of 2 members"):
        L.line(pop, d, data)


def test_a_singular_plane_is_refused():
    net, data = MLP(6, 8, 3), make_set((6,), dtype=torch.float32)
    d = L.direction(net, seed=0)
    with pytest.raises(ValueError, match="parallel: the plane is singular"):
        L.surface(net, d, {k: -2 * v for k, v in d.items()}, data)
    with pytest.raises(ValueError, match="length zero"):
        L.surface(net, d, {k: 0 * v for k, v in d.items()}, data)


def test_a_chunk_that_does_not_fit_memory_names_one_that_does(monkeypatch):
    net, data = MLP(6, 8, 3), make_set((6,), dtype=torch.float32)
    d = L.direction(net, seed=0)
    monkeypatch.setattr(_points, "free_memory", lambda device: 100_000)
    with pytest.raises(ValueError, match=r"500 points at once need about .* GB") as e:
        L.line(net, d, data, points=500, chunk=500)
    fits = int(str(e.value).split("chunk=")[1].split()[0])
    assert 1 <= fits < 500
    assert np.isfinite(L.line(net, d, data, points=500, chunk=fits).loss["data"]).all()
    assert np.isfinite(L.line(net, d, data, points=500).loss["data"]).all()


def test_free_memory_of_this_machine_is_a_sensible_number():
    assert 10**7 < _points.free_memory(torch.device("cpu")) < 10**15


@pytest.mark.parametrize(
    "change, says",
    [
        ({"span": 0}, "give a number above 0"),
        ({"span": (1, -1)}, "low < high"),
        ({"points": 1}, "at least 2"),
        ({"batch": 0}, "batch is 0"),
        ({"chunk": 1.5}, "chunk is 1.5"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"statistics": "yes"}, "statistics is 'yes'"),
    ],
)
def test_settings_out_of_range_are_refused(change, says):
    net, data = MLP(6, 8, 3), make_set((6,), dtype=torch.float32)
    with pytest.raises(ValueError, match=says):
        L.line(net, L.direction(net, seed=0), data, **change)


def test_data_that_do_not_fit_are_refused():
    net = MLP(6, 8, 3)
    d, data = L.direction(net, seed=0), make_set((6,), dtype=torch.float32)
    with pytest.raises(ValueError, match=r"cannot take inputs of shape \(5,\)"):
        L.line(net, d, make_set((5,), dtype=torch.float32))
    with pytest.raises(ValueError, match=r"labels up to 4, the network 3 outputs"):
        L.line(net, d, make_set((6,), classes=5, dtype=torch.float32))
    with pytest.raises(TypeError, match="'train' is a Tensor"):
        L.line(net, d, {"train": data.x})
    with pytest.raises(ValueError, match="no data set"):
        L.line(net, d, {})
    with pytest.raises(ValueError, match="labels for 2 members"):
        L.line(net, d, data.replace(y=torch.stack([data.y, data.y])))


def test_batchnorm_asks_for_a_choice():
    net = build(NETS["batchnorm"][0])
    with pytest.raises(ValueError, match='choose statistics="running"'):
        L.line(net, L.direction(net, seed=0), make_set((1, 8, 8)))


# --- the plane of a trajectory --------------------------------------------------------


def walk(steps=12, seed=0):
    """Networks along a noisy arc, and their parameters as rows (steps, P)."""
    g = torch.Generator().manual_seed(seed)
    net = build(NETS["mlp"][0])
    size = sum(p.numel() for p in net.parameters())
    u, v = torch.randn(2, size, generator=g).double()
    nets, rows = [], []
    for t in torch.linspace(0, 2, steps):
        net = copy.deepcopy(net)
        noise = 0.05 * torch.randn(size, generator=g).double()
        rows.append(t.cos() * u + 2 * t.sin() * v + noise)
        nn.utils.vector_to_parameters(rows[-1].clone(), net.parameters())
        nets.append(net)
    return nets, torch.stack(rows).numpy()


def test_the_pca_plane_is_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    nets, rows = walk()
    plane = L.plane(nets)
    pca = decomposition.PCA().fit(rows - rows[-1])
    np.testing.assert_allclose(
        plane.explained, pca.explained_variance_ratio_, atol=1e-12
    )
    for d, axis in zip((plane.one, plane.two), pca.components_, strict=False):
        flat = torch.cat([t.flatten() for t in d.values()]).numpy()
        assert abs(flat @ axis) == pytest.approx(1, abs=1e-10)
    assert plane.explained[:2].sum() > 0.9
    # sklearn's coordinates, seen from the last snapshot instead of from the mean
    theirs = pca.transform(rows - rows[-1])[:, :2]
    theirs = theirs - theirs[-1]
    np.testing.assert_allclose(np.abs(plane.path), np.abs(theirs), atol=1e-9)
    np.testing.assert_allclose(
        plane.left_out**2 + (plane.path**2).sum(1),
        ((rows - rows[-1]) ** 2).sum(1),
        atol=1e-8,
    )


def test_a_snapshot_in_the_plane_is_met_by_its_surface():
    nets, _ = walk(steps=3)  # three points are their own plane
    plane, data = L.plane(nets), make_set((6,))
    assert plane.left_out.max() < 1e-10
    (low, high), (_, top) = plane.span()
    assert low < plane.path[:, 0].min()
    assert top > plane.path[:, 1].max()
    a, b = plane.path[0]
    span = ((a, high), (b, top + abs(b)))
    found = L.surface(nets[-1], plane.one, plane.two, data, span=span, points=2)
    assert found.loss["data"][0, 0] == pytest.approx(evaluated(nets[0], data)[0])


def test_plane_of_a_members_trajectory_with_biases_held():
    snapshots = [
        gv.Population(NETS["mlp"][0], gv.grid(seed=[s, s + 9]), device="cpu")
        for s in range(4)
    ]
    plane = L.plane(snapshots, member=1, biases="zero")
    alone = L.plane([s[1] for s in snapshots], biases="zero")
    np.testing.assert_allclose(plane.path, alone.path)
    assert all(plane.one[k].abs().max() == 0 for k in plane.one if "bias" in k)


def test_snapshots_that_span_no_plane_are_refused():
    nets, _ = walk(steps=2)
    with pytest.raises(ValueError, match="2 snapshots span no plane"):
        L.plane(nets)
    with pytest.raises(ValueError, match="lie on one point"):
        L.plane([nets[0]] * 4)
    d = L.direction(nets[0], seed=0)
    line = [moved(nets[0], (t, d)) for t in (0.0, 1.0, 2.0)]
    with pytest.raises(ValueError, match="lie on one line"):
        L.plane(line)
    with pytest.raises(ValueError, match=r"differ in layers.0.weight"):
        L.plane([*nets, MLP(6, 9, 3)])
    with pytest.raises(ValueError, match="biases is 'random'"):
        L.plane(nets, biases="random")
