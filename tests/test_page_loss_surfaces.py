"""What the page on loss surfaces defines, against what is known in closed form."""

import numpy as np
import pytest
import torch
from page_parts import definitions

import gvlib as gv

CONSTANTS = {"GUESS", "LEVELS", "SEEDS", "SET"}
page = definitions("landscapes/loss-surfaces", CONSTANTS)


def surface_of(*functions, points=21, span=0.5):
    """Surfaces of given heights f(a, b), a member each."""
    axis = np.linspace(-span, span, points)
    a, b = np.meshgrid(axis, axis)
    loss = {"train": np.stack([f(a, b) for f in functions])}
    members = gv.grid(seed=range(len(functions)))
    return gv.landscape.Surface(loss, {}, {}, "", members, axis, axis)


def flat(height):
    """The same height everywhere."""
    return lambda a, b: np.full_like(a, height)


def test_room_is_the_share_below_guessing():
    surface = surface_of(
        flat(page["GUESS"] - 1e-9),
        lambda a, b: np.where(b < 0.01, 0.0, 5.0),
        flat(page["GUESS"]),
    )
    np.testing.assert_allclose(page["room"](surface), [1, 11 / 21, 0])


@pytest.mark.parametrize("turn", [0.0, 0.4, np.pi / 4, 1.2])
@pytest.mark.parametrize("ratio, expected", [(1, 0), (0.0, 0), (-0.09, 0), (-0.11, 1)])
def test_downward_compares_curvatures_in_any_direction(turn, ratio, expected):
    """A quadratic has the same two curvatures everywhere, however it is turned."""

    def bent(a, b):
        u, v = np.cos(turn) * a + np.sin(turn) * b, np.cos(turn) * b - np.sin(turn) * a
        return 3 * (u**2 + ratio * v**2) + 2 * a - b

    assert page["downward"](surface_of(bent)) == expected


def test_downward_is_everything_on_a_dome_and_half_on_a_wave():
    surface = surface_of(
        lambda a, b: -(a**2) - b**2,
        lambda a, b: np.sin(2 * np.pi * a),  # curves down where a > 0
    )
    found = page["downward"](surface)
    assert found[0] == 1
    assert found[1] == pytest.approx(9 / 19)


def test_outward_takes_the_halves_beyond_the_ends():
    t = np.linspace(-0.5, 1.5, 41)
    left, right = np.where(t < 0, -t, 0), np.where(t > 1, 2 * (t - 1), 0)
    loss = {"train": np.stack([1 + left + right])}
    line = gv.landscape.Line(loss, {}, {}, "", gv.grid(seed=[0]), t)
    small, large = page["outward"](line)
    expected = np.mean(np.arange(1, 11) * 0.05)
    assert small[0] == pytest.approx(expected)
    assert large[0] == pytest.approx(2 * expected)


def test_two_components_of_a_random_walk_hold_what_the_paper_says():
    noise = torch.randn(300, 20_000, generator=torch.Generator().manual_seed(0))
    share = page["explained_by_two"](noise.cumsum(0))
    assert share == pytest.approx(6 / np.pi**2 * (1 + 1 / 4), abs=0.02)
    flat = torch.outer(torch.arange(9.0), torch.ones(5))
    assert page["explained_by_two"](flat) == pytest.approx(1)


def test_a_tower_has_its_layers_and_skips_pass_the_input_on():
    plain, skip = (page["Tower"](8, 16, kind).eval() for kind in (False, True))
    assert sum(isinstance(m, torch.nn.Linear) for m in plain.modules()) == 8
    x = torch.randn(5, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    for net in (plain, skip):
        for layer in net.layers:
            torch.nn.init.zeros_(layer.weight)
    torch.testing.assert_close(plain(x), plain.last.bias.expand(5, -1))
    first = torch.relu(skip.norms[0](skip.first(x.flatten(1))))
    torch.testing.assert_close(skip(x), skip.last(first))


def test_weight_norm_and_length_count_what_they_say():
    nets = gv.Population(lambda: page["Tower"](4, 8, False), {"seed": [0, 1]})
    net = nets[1]
    filters = [m.weight for m in net.modules() if isinstance(m, torch.nn.Linear)]
    expected = torch.cat([w.flatten() for w in filters]).norm().item()
    assert page["weight_norm"](nets)[1] == pytest.approx(expected)
    d = page["to_length"](gv.landscape.direction(net, seed=0), 3.0)
    assert sum(float((p**2).sum()) for p in d.values()) == pytest.approx(9)
