"""Radii and volumes against bowls whose radii are known, and against each other."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gvlib as gv
from gvlib.basins import log_ball, log_ratio, log_volume
from gvlib.data import Dataset
from gvlib.models import CNN, MLP

L = gv.landscape
TOLERANCE = 1e-5


def bowl(curvature):
    """L(theta) = 1/2 sum_i c_i theta_i^2 at its minimum: network, data and loss."""
    n = len(curvature)
    net = nn.Linear(n, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    x = torch.diag(torch.as_tensor(n * np.asarray(curvature)).sqrt())
    return net, Dataset(x, torch.zeros(n).long(), name="bowl")


def half_square(logits, labels):
    return logits[:, 0] ** 2 / 2


def bowl_radii(curvature, cutoff=0.3, rays=40, **options):
    net, data = bowl(curvature)
    return L.radii(
        net, data, cutoff=cutoff, rays=rays, normalize="unit", loss=half_square,
        tolerance=TOLERANCE, **options,
    )  # fmt: skip


@pytest.mark.parametrize("n", [2, 10, 100, 1000])
def test_radii_of_a_bowl_are_its_own_ray_by_ray(n):
    """On c theta^2 / 2, r(d) = sqrt(2 cutoff / sum c_i d_i^2) for a unit ray d."""
    curvature = np.geomspace(0.5, 50, n)
    found = bowl_radii(curvature)
    for i in range(40):
        d = found.ray(i)["weight"][0].numpy()
        assert np.sum(d**2) == pytest.approx(1)
        r = math.sqrt(2 * 0.3 / np.sum(curvature * d**2))
        assert found.radii[i] == pytest.approx(r, rel=2 * TOLERANCE)
    assert found.dimensions == n
    assert not found.still_inside.any()


@pytest.mark.parametrize("n", [2, 10, 100, 1000])
def test_volume_of_a_round_bowl_is_that_of_a_ball(n):
    """All rays are equal: log10 V = log10 w_n + n log10 r, to n times the tolerance."""
    found = bowl_radii(np.full(n, 4.0), rays=20)
    row = found.volumes().iloc[0]
    exact = log_ball(n) + n * math.log10(math.sqrt(2 * 0.3 / 4.0))
    for how in ("mean", "median"):
        value = row[f"log10_{how}"] + log_ball(n)
        assert value == pytest.approx(exact, abs=n * TOLERANCE)
    assert (row["rays"], row["still_inside"]) == (20, 0)


@pytest.mark.parametrize("n", [2, 10])
def test_volume_of_an_elongated_bowl_is_that_of_its_ellipsoid(n):
    """V = w_n prod_i sqrt(2 cutoff / c_i), where the mean over rays can find it."""
    curvature = np.linspace(1, 2, n)
    row = bowl_radii(curvature, rays=2000).volumes().iloc[0]
    exact = np.log10(np.sqrt(2 * 0.3 / curvature)).sum()
    assert row["log10_mean_low"] < exact < row["log10_mean_high"]
    assert abs(row["log10_mean"] - exact) < 0.02
    assert row["log10_median"] < row["log10_mean"]


def test_radii_in_filter_normalized_units_against_a_plain_walk():
    net, data = fitted()
    found = L.radii(net, data, cutoff=0.5, rays=5, seed=2, tolerance=1e-4)
    base = [p.detach().clone() for p in net.parameters()]

    def loss(d, r):
        with torch.no_grad():
            for p, w, step in zip(net.parameters(), base, d.values(), strict=True):
                p.copy_(w + r * step)
            return F.cross_entropy(net(data.x), data.y).item()

    for i, r in enumerate(found.radii):
        d = found.ray(i)
        assert d["layers.0.weight"].norm().item() == pytest.approx(
            base[0].norm().item()
        )
        for t in np.linspace(0, 0.998 * r, 50):  # first crossing, not just a crossing
            assert loss(d, t) < 0.5
        assert loss(d, 1.002 * r) > 0.5
    loss(found.ray(0), 0.0)  # put back


def fitted(seed=0, make=lambda: MLP(2, 16, 16, 2)):
    """A network trained to a small loss on two moons, float64."""
    data = gv.data.moons(60, noise=0.1, seed=0)
    pop = gv.Population(make, {"seed": [seed]}, device="cpu")
    net = gv.train(pop, data, epochs=60, optimizer="adam", lr=0.01).population[0]
    data = data.replace(x=data.x.double())
    return net.double(), data


def test_members_of_a_population_have_the_radii_they_have_alone():
    data = gv.data.moons(40, noise=0.1, seed=0)
    pop = gv.Population(lambda: MLP(2, 8, 2), gv.grid(seed=range(3)), device="cpu")
    pop = gv.train(pop, data, epochs=40, optimizer="adam", lr=0.02).population
    pop = pop.to(dtype=torch.float64)
    both = L.radii(pop, data, cutoff=0.6, rays=7, chunk=3, seed=4)
    assert both.radii.shape == both.still_inside.shape == (3, 7)
    for i in range(3):
        alone = L.radii(pop[i], data, cutoff=0.6, rays=7, seed=4)
        np.testing.assert_allclose(both.radii[i], alone.radii, rtol=1e-12)
        for k, d in both.ray(2).items():
            torch.testing.assert_close(d[i], alone.ray(2)[k])
    table = both.volumes()
    assert table["seed"].tolist() == [0, 1, 2]
    assert table["dimensions"].tolist() == [32] * 3  # biases do not move
    assert both.dimensions == alone.dimensions


def test_a_ray_depends_on_seed_and_number_alone():
    few = bowl_radii(np.geomspace(1, 9, 5), rays=5)
    many = bowl_radii(np.geomspace(1, 9, 5), rays=9, chunk=2)
    np.testing.assert_array_equal(few.radii, many.radii[:5])
    other = bowl_radii(np.geomspace(1, 9, 5), rays=5, seed=1)
    assert not np.isclose(few.radii, other.radii, rtol=1e-3).any()


def test_rays_that_never_reach_the_cutoff_are_counted_and_said():
    flat = np.array([1.0, 1e-12])  # nearly flat along one axis
    found = bowl_radii(flat, largest=2.0, rays=200)
    slopes = np.array([abs(float(found.ray(i)["weight"][0, 0])) for i in range(200)])
    reach = math.sqrt(2 * 0.3) / slopes
    assert found.still_inside.tolist() == (reach > 2).tolist()
    count = int(found.still_inside.sum())
    assert 20 < count < 180
    assert (found.radii[found.still_inside] == 2.0).all()
    assert found.how == f"200 rays, cut-off 0.3, {count} still inside at 2"
    assert found.volumes().iloc[0]["still_inside"] == count


def test_a_radius_below_the_start_is_found():
    found = bowl_radii(np.full(3, 1e12), rays=4)
    np.testing.assert_allclose(found.radii, math.sqrt(0.6e-12), rtol=2 * TOLERANCE)


def test_where_the_loss_is_not_finite_the_basin_has_ended():
    net, data = bowl([1.0, 1.0])

    def walled(logits, labels):
        z = half_square(logits, labels)
        return torch.where(z > 0.01, torch.nan, z)

    found = L.radii(net, data, cutoff=1.0, rays=3, normalize="unit", loss=walled)
    assert (found.radii < 0.25).all()
    assert not found.still_inside.any()


def test_a_convnet_walks_ray_by_ray_to_the_same_place():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 1, 8, 8, generator=g).double()
    data = Dataset(x, torch.randint(3, (20,), generator=g))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = CNN((3, 4), shape=(1, 8, 8), classes=3).double()
    own = F.cross_entropy(net(x), data.y).item()
    found = L.radii(net, data, cutoff=own + 0.1, rays=3)
    for i, r in enumerate(found.radii):
        there = copy.deepcopy(net)
        with torch.no_grad():
            for k, p in there.named_parameters():
                p += r * found.ray(i)[k]
        loss = F.cross_entropy(there(x), data.y).item()
        assert loss == pytest.approx(own + 0.1, abs=1e-3)


def test_a_cutoff_not_above_the_own_loss_is_refused_and_names_the_members():
    data = gv.data.moons(40, noise=0.1, seed=0)
    pop = gv.Population(
        lambda: MLP(2, 8, 2), {"seed": [0, 0], "init_scale": [1, 30]}, device="cpu"
    )
    with pytest.raises(ValueError, match=r"not above the own loss of member 1 \("):
        L.radii(pop, data, cutoff=1.0, rays=2)
    with pytest.raises(ValueError, match="not above the own loss of the network"):
        L.radii(pop[0], data, cutoff=0.01, rays=2)
    broken = pop[0]
    nn.init.constant_(broken.layers[0].weight, math.nan)
    with pytest.raises(ValueError, match=r"own loss of the network \(nan\)"):
        L.radii(broken, data, cutoff=1.0, rays=2)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"cutoff": math.nan}, "cutoff is nan"),
        ({"rays": 0}, "rays is 0"),
        ({"start": 20.0}, "start is 20.0 and largest 10.0"),
        ({"growth": 1.0}, "growth is 1.0"),
        ({"tolerance": 0}, "tolerance 0"),
        ({"normalize": None}, "rays need a scale"),
        ({"biases": "copy"}, "rays need a scale"),
        ({"normalize": "box"}, "normalize is 'box'"),
    ],
)
def test_settings_out_of_range_are_refused(change, says):
    net, data = bowl([1.0, 2.0])
    options = {"cutoff": 1.0, "normalize": "unit", "loss": half_square} | change
    with pytest.raises(ValueError, match=says):
        L.radii(net, data, **options)


# --- volumes --------------------------------------------------------------------------


def test_log_mean_and_median_are_those_of_plain_arithmetic_where_it_can_be_done():
    r = np.random.default_rng(0).uniform(0.5, 1.5, 31)
    v = log_volume(r, 7)
    assert v.mean.value == pytest.approx(math.log10(np.mean(r**7)))
    assert v.median.value == pytest.approx(7 * math.log10(np.median(r)))
    assert v.largest_ray_share == pytest.approx(r.max() ** 7 / np.sum(r**7))
    assert v.mean.low < v.mean.value < v.mean.high
    assert v.median.low < v.median.value < v.median.high


def test_volumes_beyond_what_a_float_holds():
    r = np.random.default_rng(0).uniform(0.01, 0.02, 50)
    v = log_volume(r, 100_000)
    top = 100_000 * math.log10(r.max())
    assert v.mean.value == pytest.approx(top - math.log10(50), abs=1)
    assert v.largest_ray_share == pytest.approx(1)


def test_interval_of_the_median_covers_what_it_says():
    """Median radius of lognormal rays: n log10 median r is exactly 0."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = log_volume(np.exp(0.1 * rng.normal(size=100)), 50, seed=trial).median
        hits += found.low <= 0 <= found.high
    assert hits >= 180  # 95 % of 200 is 190; 180 is 3 standard errors below


def test_ratios_of_volumes():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.2, 0.3, 200), rng.uniform(0.1, 0.15, 200)
    mean, median = log_ratio(a, b, 1000)
    one, two = log_volume(a, 1000), log_volume(b, 1000)
    assert mean.value == pytest.approx(one.mean.value - two.mean.value)
    assert median.value == pytest.approx(one.median.value - two.median.value)
    exact = 1000 * math.log10(2)
    assert median.low < exact < median.high
    back = log_ratio(b, a, 1000)[1]
    assert back.value == pytest.approx(-median.value)


def test_unit_balls():
    for n, volume in [(1, 2), (2, math.pi), (3, 4 / 3 * math.pi), (4, math.pi**2 / 2)]:
        assert log_ball(n) == pytest.approx(math.log10(volume))


def test_radii_that_are_none_are_refused():
    with pytest.raises(ValueError, match="finite and above 0"):
        log_volume(np.array([0.1, 0.0]), 5)
    with pytest.raises(ValueError, match="2 rays or more"):
        log_volume(np.array([0.1]), 5)
    with pytest.raises(ValueError, match="b must be finite"):
        log_ratio(np.array([0.1, 0.2]), np.array([0.1, np.inf]), 5)
