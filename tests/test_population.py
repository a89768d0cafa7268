"""A population is its networks, stacked: nothing is lost, nothing leaks."""

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

import gvlib as gv
from gvlib.models import CNN, MLP, ResNet

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def mlp():
    return MLP(3, 8, 4)


def alone(make, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def test_grid_has_every_combination_last_axis_fastest():
    table = gv.grid(seed=[1, 2], lr=[0.1, 0.2, 0.3])
    assert table["seed"].tolist() == [1, 1, 1, 2, 2, 2]
    assert table["lr"].tolist() == [0.1, 0.2, 0.3] * 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "make, shape",
    [
        (mlp, (3,)),
        (lambda: CNN((2, 4), shape=(1, 8, 8), classes=3), (1, 8, 8)),
        (lambda: ResNet(1, width=2), (3, 8, 8)),
    ],
)
def test_a_member_is_the_network_built_under_its_seed(make, shape, device):
    population = gv.Population(make, {"seed": [7, 3, 11]}, device=device)
    x = torch.randn(5, *shape)
    logits = population(x).cpu()
    for row, seed in enumerate([7, 3, 11]):
        net = alone(make, seed).eval()
        torch.testing.assert_close(logits[row], net(x), rtol=1e-4, atol=1e-5)
        member = population[row].eval().cpu()
        for name, parameter in net.named_parameters():
            assert torch.equal(member.get_parameter(name), parameter)


def test_building_and_calling_leave_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    gv.Population(mlp, {"seed": [1, 2]}, device="cpu")(torch.zeros(2, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_members_may_see_their_own_inputs_and_chunks_do_not_matter():
    population = gv.Population(mlp, {"seed": [1, 2]}, device="cpu")
    x = torch.randn(2, 9, 3)
    own = population(x, own=True, chunk=4)
    for i in range(2):
        torch.testing.assert_close(own[i], population(x[i])[i])


def test_a_member_taken_out_is_a_copy():
    population = gv.Population(mlp, {"seed": [1]}, device="cpu")
    net = population[0]
    with torch.no_grad():
        net.layers[0].weight.zero_()
    assert population.params["layers.0.weight"].any()
    assert population[-1].layers[0].weight.any()


def test_a_member_taken_out_trains_and_keeps_buffers_that_are_not_saved():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)
            self.register_buffer("scale", torch.tensor(2.0), persistent=False)

        def forward(self, x):
            return self.linear(x) * self.scale

    population = gv.Population(Net, {"seed": [1]}, device="cpu")
    x = torch.randn(4, 3)
    logits = population(x)[0]
    assert population[0].training
    torch.testing.assert_close(population[0](x), logits)
    assert all(p.requires_grad for p in population[0].parameters())


def test_torchs_own_dropout_is_refused():
    make = lambda: torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout())  # noqa: E731
    with pytest.raises(ValueError, match=r"use gvlib\.models\.Dropout"):
        gv.Population(make, {"seed": [1]}, device="cpu")


def test_init_scale_multiplies_weights_or_the_named_parameters():
    members = {"seed": [1, 1], "init_scale": [1.0, 10.0]}
    p = gv.Population(mlp, members, device="cpu").params
    torch.testing.assert_close(p["layers.0.weight"][1], 10 * p["layers.0.weight"][0])
    assert torch.equal(p["layers.0.bias"][1], p["layers.0.bias"][0])
    only = gv.Population(mlp, members, scaled=["layers.1.weight"], device="cpu").params
    assert torch.equal(only["layers.0.weight"][1], only["layers.0.weight"][0])
    torch.testing.assert_close(
        only["layers.1.weight"][1], 10 * only["layers.1.weight"][0]
    )


def test_dropout_column_sets_the_rates():
    make = lambda: MLP(3, 8, 8, 4, dropout=0.0)  # noqa: E731
    members = {"seed": [1, 2], "dropout": [0.1, 0.6]}
    population = gv.Population(make, members, device="cpu")
    for layer in range(2):
        rates = population.buffers[f"dropouts.{layer}.rate"]
        torch.testing.assert_close(rates, torch.tensor([0.1, 0.6]))
    keys = torch.cat([population.buffers[f"dropouts.{i}.key"] for i in range(2)])
    assert len(keys.unique()) == 4  # a stream of its own for each member and layer


def test_select_by_rows_and_by_mask():
    population = gv.Population(mlp, gv.grid(seed=range(4)), device="cpu")
    x = torch.randn(2, 3)
    torch.testing.assert_close(population.select([3, 0])(x), population(x)[[3, 0]])
    mask = population.members["seed"] > 1
    for rows in (mask, mask.to_numpy(), mask.tolist(), torch.tensor(mask.to_numpy())):
        some = population.select(rows)
        assert some.members["seed"].tolist() == [2, 3]
    some.params["layers.0.weight"].zero_()
    assert population.params["layers.0.weight"][2].any()


def test_checkpoint_round_trip(tmp_path):
    make = lambda: ResNet(1, width=2)  # noqa: E731
    members = gv.grid(seed=[5, 2], lr=[0.1 + 0.2, 1 / 3, 1.23456789e-10], tag=["é"])
    population = gv.Population(make, members, device="cpu")
    path = population.save(tmp_path / "nets.safetensors")
    state = torch.get_rng_state()
    read = gv.Population.load(path, make, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    pd.testing.assert_frame_equal(read.members, population.members, check_exact=True)
    for kind in ("params", "buffers"):
        for name, tensor in getattr(population, kind).items():
            assert torch.equal(getattr(read, kind)[name], tensor)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(read(x), population(x))
    assert [p.name for p in tmp_path.iterdir()] == ["nets.safetensors"]


def test_checkpoint_of_another_network_is_refused(tmp_path):
    path = gv.Population(mlp, {"seed": [1]}, device="cpu").save(tmp_path / "a.st")
    with pytest.raises(ValueError, match=r"differ in .*layers\.0\.weight"):
        gv.Population.load(path, lambda: MLP(3, 9, 4), device="cpu")


def test_what_is_no_checkpoint_is_named(tmp_path):
    path = gv.Population(mlp, {"seed": [1]}, device="cpu").save(tmp_path / "a.st")
    cut = tmp_path / "cut.st"
    cut.write_bytes(path.read_bytes()[:-8])
    foreign = tmp_path / "foreign.st"
    safetensors.torch.save_file({"w": torch.zeros(2)}, foreign)
    for wrong in (cut, foreign):
        with pytest.raises(ValueError, match=rf"{wrong.name} is not a population"):
            gv.Population.load(wrong, mlp, device="cpu")
    with pytest.raises(FileNotFoundError):
        gv.Population.load(tmp_path / "none.st", mlp, device="cpu")


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    population = gv.Population(mlp, {"seed": [1]}, device="cpu")
    path = population.save(tmp_path / "a.st")
    before = path.read_bytes()

    def cut_short(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", cut_short)
    with pytest.raises(OSError, match="disk full"):
        population.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.st"]


def test_to_copies_and_repr_counts():
    population = gv.Population(mlp, {"seed": [1, 2]}, device="cpu")
    copy = population.to("cpu")
    copy.params["layers.0.bias"].zero_()
    assert population.params["layers.0.bias"].any()
    assert repr(population) == "Population(2 x 68 parameters on cpu)"


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: gv.grid(seed=[]), ValueError, "'seed' is empty"),
        (
            lambda: gv.Population(mlp, {"seed": [1, 2], "lr": [0.1]}, device="cpu"),
            ValueError,
            "differ in length.*'seed': 2, 'lr': 1",
        ),
        (lambda: gv.Population(mlp, {"lr": [1.0]}), ValueError, "no 'seed'"),
        (lambda: gv.Population(mlp, {"seed": []}), ValueError, "empty"),
        (lambda: gv.Population(mlp, {"seed": [0.5]}), TypeError, "whole numbers"),
        (
            lambda: gv.Population(mlp, {"seed": [1], "dropout": [0.5]}, device="cpu"),
            ValueError,
            "no Dropout layer",
        ),
        (
            lambda: gv.Population(
                lambda: MLP(3, 4, 2, dropout=0.0),
                {"seed": [1], "dropout": [1.0]},
                device="cpu",
            ),
            ValueError,
            r"rates lie in \[0, 1\)",
        ),
        (
            lambda: gv.Population(
                mlp, {"seed": [1], "init_scale": [2.0]}, scaled=["first"], device="cpu"
            ),
            ValueError,
            "scaled names 'first'",
        ),
        (
            lambda: gv.Population(mlp, {"seed": [1]}, device="cpu")[1],
            IndexError,
            "population of 1",
        ),
        (
            lambda: gv.Population(mlp, {"seed": [1]}, device="cpu")(
                torch.zeros(2, 5, 3), own=True
            ),
            ValueError,
            "own inputs for 2 members",
        ),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_numpy_and_frames_serve_as_members():
    table = pd.DataFrame({"seed": np.arange(3), "tag": list("abc")}, index=[9, 8, 7])
    population = gv.Population(mlp, table, device="cpu")
    assert population.members["tag"].tolist() == ["a", "b", "c"]
    assert population.select([2]).members["tag"].tolist() == ["c"]
