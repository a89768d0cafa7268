"""Training a population is training each of its networks alone."""

import functools
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gvlib as gv
from gvlib.data import Dataset
from gvlib.models import CNN, MLP, ResNet
from gvlib.train import DivergedWarning

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
# torch's compiler, on its first import, uses a function that torch itself deprecates.
TORCHS_OWN = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
# And on Python 3.13.0 alone it warns that 3.13.1 would be faster.
SLOWER = pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")
COMPILED = pytest.param(True, marks=[TORCHS_OWN, SLOWER])
CAN = shutil.which("g++") is not None and " " not in torch.__path__[0]
COMPILE = [False] + [COMPILED] * CAN
NETS = {
    "mlp": (lambda: MLP(12, 16, 3), (12,)),
    "dropout": (lambda: MLP(12, 16, 16, 3, dropout=0.4), (12,)),
    "cnn": (lambda: CNN((3, 4), shape=(1, 8, 8), classes=3), (1, 8, 8)),
    "batchnorm": (lambda: ResNet(1, width=2, channels=1, classes=3), (1, 8, 8)),
}


def make_set(shape, n=50, classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=g)
    y = torch.randint(classes, (n,), generator=g)
    names = tuple(map(str, range(classes)))
    return Dataset(x=x, y=y, weights=None, name="made", classes=names)


def mlp(**options):
    return gv.Population(
        NETS["mlp"][0], gv.grid(seed=range(3)), device="cpu", **options
    )


def orders(seed, n, epochs):
    """The batch order of a member, as `train` documents it: a function of its seed."""
    g = torch.Generator().manual_seed(
        seed + gv.Runs.__init__.__globals__["_ORDER_SEED"]
    )
    return [torch.randperm(n, generator=g) for _ in range(epochs)]


def train_alone(net, data, order, optimizer, batch, factor=lambda t: 1.0, weights=None):
    """The plain loop of a tutorial, with torch's own optimizer."""
    net.train()
    lr = optimizer.param_groups[0]["lr"]
    steps = sum(len(o.split(batch)) for o in order)
    done = 0
    for epoch in order:
        for i in epoch.split(batch):
            optimizer.param_groups[0]["lr"] = lr * factor(done / steps)
            losses = F.cross_entropy(net(data.x[i]), data.y[i], reduction="none")
            loss = (losses if weights is None else losses * weights[i]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
    return net


def assert_same(member, net, tolerance=1e-10):
    for name, tensor in net.state_dict().items():
        found = member.state_dict()[name].cpu()
        torch.testing.assert_close(
            found, tensor, rtol=tolerance, atol=tolerance, msg=name
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("how", ["vmap", "loop"])
@pytest.mark.parametrize("name", NETS)
def test_a_member_equals_the_network_trained_alone(name, how, device):
    make, shape = NETS[name]
    data = make_set(shape)
    seeds = [4, 9, 2]
    population = gv.Population(make, {"seed": seeds}, device=device)
    population = population.to(dtype=torch.float64)
    data = data.replace(x=data.x.double())
    settings = {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.01}
    runs = gv.train(population, data, epochs=4, batch=16, how=how, **settings)
    for row, seed in enumerate(seeds):
        net = population[row].cpu()
        optimizer = torch.optim.SGD(net.parameters(), **settings)
        train_alone(net, data, orders(seed, 50, 4), optimizer, 16)
        assert_same(runs.population[row], net, 1e-10 if device == "cpu" else 1e-7)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_float32_agrees_with_alone_within_float_tolerance(name, device):
    make, shape = NETS[name]
    data = make_set(shape)
    population = gv.Population(make, {"seed": [4, 9]}, device=device)
    runs = gv.train(population, data, epochs=4, batch=16, lr=0.05)
    for row, seed in enumerate([4, 9]):
        net = population[row].cpu()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        train_alone(net, data, orders(seed, 50, 4), optimizer, 16)
        assert_same(runs.population[row], net, 1e-4)


@pytest.mark.parametrize("compile", COMPILE)
def test_hyper_parameters_differ_between_members(compile):
    members = {
        "seed": [0, 1, 2],
        "lr": [0.1, 0.02, 0.05],
        "momentum": [0.0, 0.9, 0.5],
        "weight_decay": [0.0, 0.1, 0.01],
    }
    data = make_set((12,))
    data = data.replace(x=data.x.double())
    population = gv.Population(NETS["mlp"][0], members, device="cpu")
    population = population.to(dtype=torch.float64)
    runs = gv.train(population, data, epochs=3, batch=25, compile=compile)
    for row in range(3):
        net = population[row]
        own = {k: v[row] for k, v in members.items() if k != "seed"}
        optimizer = torch.optim.SGD(net.parameters(), **own)
        train_alone(net, data, orders(row, 50, 3), optimizer, 25)
        assert_same(runs.population[row], net)


@pytest.mark.parametrize("nesterov", [False, True])
def test_schedule_and_nesterov_are_torchs(nesterov):
    data = make_set((12,))
    population = mlp()
    schedule = gv.schedules.cosine(warmup=0.2)
    runs = gv.train(
        population,
        data,
        epochs=5,
        batch=16,
        lr=0.1,
        nesterov=nesterov,
        schedule=schedule,
    )
    net = population[1]
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, nesterov=nesterov)
    train_alone(net, data, orders(1, 50, 5), optimizer, 16, schedule)
    assert_same(runs.population[1], net, 1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_torchs(decay):
    data = make_set((12,))
    data = data.replace(x=data.x.double())
    members = {"seed": [0, 1], "lr": [0.01, 0.003]}
    population = gv.Population(NETS["mlp"][0], members, device="cpu")
    population = population.to(dtype=torch.float64)
    runs = gv.train(
        population, data, epochs=5, batch=16, optimizer="adam", weight_decay=decay
    )
    for row in range(2):
        net = population[row]
        optimizer = torch.optim.Adam(
            net.parameters(), members["lr"][row], weight_decay=decay
        )
        train_alone(net, data, orders(row, 50, 5), optimizer, 16)
        assert_same(runs.population[row], net, 1e-8)


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_own_inputs_labels_and_weights(how):
    sets = [make_set((12,), seed=s) for s in range(3)]
    g = torch.Generator().manual_seed(1)
    weights = torch.rand(3, 50, generator=g)
    own = sets[0].replace(
        x=torch.stack([s.x for s in sets]),
        y=torch.stack([s.y for s in sets]),
        weights=weights,
    )
    population = mlp()
    runs = gv.train(population, own, epochs=3, batch=16, lr=0.05, how=how)
    for row, data in enumerate(sets):
        net = population[row]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        order = orders(row, 50, 3)
        train_alone(net, data, order, optimizer, 16, weights=weights[row])
        assert_same(runs.population[row], net, 1e-5)
        accuracy = (net(data.x).argmax(1) == data.y).float().mean().item()
        assert runs.last("train_accuracy", seed=row)[0] == pytest.approx(accuracy)


def test_shared_batches_follow_the_first_member():
    data = make_set((12,))
    population = mlp()
    runs = gv.train(population, data, epochs=3, batch=16, lr=0.05, batches="shared")
    net = population[2]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    train_alone(net, data, orders(0, 50, 3), optimizer, 16)
    assert_same(runs.population[2], net, 1e-5)


@pytest.mark.parametrize("compile", COMPILE)
def test_a_member_stops_when_it_fits_and_keeps_those_weights(compile):
    data = make_set((12,), n=30)
    members = {"seed": [0, 1, 2], "lr": [0.3, 0.02, 0.1]}
    population = gv.Population(NETS["mlp"][0], members, device="cpu")
    settings = {"batch": 10, "momentum": 0.0}
    runs = gv.train(
        population, data, epochs=60, stop_at=1.0, compile=compile, **settings
    )
    stops = runs.records.groupby("member")["epoch"].max()
    assert len(set(stops)) > 1, "the test needs members that stop at different epochs"
    fitted = runs.first_epoch("train_accuracy", at_least=1.0)
    for row in range(3):
        if not np.isnan(fitted[row]):
            assert stops[row] == fitted[row]
        one = population.select([row])
        alone = gv.train(one, data, epochs=int(stops[row]), **settings)
        assert_same(runs.population[row], alone.population[0], 1e-5)


def assert_same_populations(found, expected, rows=slice(None), tolerance=0.0):
    for kind in ("params", "buffers"):
        stacked = getattr(found, kind)
        for name, tensor in getattr(expected, kind).items():
            torch.testing.assert_close(
                stacked[name][rows], tensor[rows], rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("how", ["vmap", "loop"])
@pytest.mark.parametrize("name", ["dropout", "batchnorm"])
def test_kept_weights_are_those_of_a_shorter_run(name, how, device):
    make, shape = NETS[name]
    data = make_set(shape)
    settings = {"batch": 16, "lr": 0.05, "how": how, "chunk": 2, "record_every": 3}
    population = gv.Population(make, {"seed": [4, 9, 2]}, device=device)
    runs = gv.train(population, data, epochs=5, keep=[5, 2, 0, 2], **settings)
    assert list(runs.kept) == [0, 2, 5], "in order, once each"
    assert_same_populations(runs.kept[0], population)
    shorter = gv.train(population, data, epochs=2, **settings).population
    assert_same_populations(runs.kept[2], shorter, tolerance=1e-6)
    assert_same_populations(runs.kept[5], runs.population)
    assert runs.kept[2].device == population.device
    assert runs.kept[2].members.equals(population.members)
    plane = gv.landscape.plane(list(runs.kept.values()), member=1)
    assert plane.path.shape == (3, 2)


@pytest.mark.parametrize("compile", COMPILE)
def test_a_member_that_stopped_is_kept_as_it_was_then(compile):
    data = make_set((12,), n=30)
    members = {"seed": [0, 1, 2], "lr": [0.3, 0.02, 0.1]}
    population = gv.Population(NETS["mlp"][0], members, device="cpu")
    settings = {"batch": 10, "momentum": 0.0, "compile": compile}
    runs = gv.train(
        population, data, epochs=60, stop_at=1.0, keep=range(61), **settings
    )
    stops = runs.records.groupby("member")["epoch"].max().to_numpy()
    assert len(set(stops)) > 1, "the test needs members that stop at different epochs"
    free = gv.train(population, data, epochs=60, keep=range(61), **settings)
    for row, stop in enumerate(stops):
        for epoch in (0, 1, stop - 1, stop):
            assert_same_populations(runs.kept[epoch], free.kept[epoch], row, 1e-5)
        for epoch in range(stop, 61):
            assert_same_populations(runs.kept[epoch], runs.population, row)
    early, name = stops.argmin(), "layers.0.weight"
    moved = free.kept[60].params[name][early] - runs.kept[60].params[name][early]
    assert moved.abs().max() > 1e-4, "a free run goes on"


def test_keeping_changes_no_result_and_copies_share_no_memory():
    data, start = make_set((12,)), mlp()
    plain, runs = (
        gv.train(start, data, data, epochs=3, keep=keep) for keep in ((), [0, 1, 3])
    )
    assert plain.kept == {}
    assert_same_populations(plain.population, runs.population)
    assert plain.records.drop(columns="seconds").equals(
        runs.records.drop(columns="seconds")
    )
    every = [start, *runs.kept.values(), runs.population]
    places = {nets.params["layers.0.weight"].data_ptr() for nets in every}
    assert len(places) == len(every)


@pytest.mark.parametrize(
    "keep, error, words",
    [
        ([1, 4], ValueError, r"keep has 4; give whole numbers from 0 .* to 3"),
        ([-1], ValueError, "keep has -1"),
        ([1.0], ValueError, r"keep has 1\.0"),
        ([1, True], ValueError, "keep has True"),
        (2, TypeError, "keep is 2; give whole numbers"),
        ("12", TypeError, "keep is '12'"),
    ],
)
def test_epochs_that_cannot_be_kept_are_refused_before_training(keep, error, words):
    class Untouchable(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2, 2))

        def forward(self, x):
            raise AssertionError("it was run")

    population = gv.Population(Untouchable, {"seed": [0]}, device="cpu")
    with pytest.raises(error, match=words):
        gv.train(population, make_set((12,)), epochs=3, keep=keep)


@pytest.mark.parametrize("batches", ["own", "shared"])
@pytest.mark.parametrize("other", [{"chunk": 2}, {"how": "loop"}])
def test_chunks_change_nothing(batches, other):
    data = make_set((12,))
    whole = gv.train(mlp(), data, data, epochs=3, batches=batches)
    split = gv.train(mlp(), data, data, epochs=3, batches=batches, **other)
    columns = [c for c in whole.records if c != "seconds"]
    for c in columns:
        np.testing.assert_allclose(whole.records[c], split.records[c], rtol=1e-5)
    for k, p in whole.population.params.items():
        torch.testing.assert_close(split.population.params[k], p)


class Partly(torch.nn.Module):
    """A network with a parameter that its output does not depend on."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = torch.nn.Linear(12, 3), torch.nn.Linear(12, 3)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_a_parameter_that_is_not_used_only_decays(how):
    population = gv.Population(Partly, {"seed": [0, 1]}, device="cpu")
    data = make_set((12,))
    settings = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.5, "batch": 50}
    with torch.no_grad():  # a caller's no_grad changes nothing
        runs = gv.train(population, data, epochs=2, how=how, **settings)
    before, after = population.params, runs.population.params
    torch.testing.assert_close(after["idle.bias"], before["idle.bias"] * 0.95**2)
    assert (after["used.bias"] - before["used.bias"] * 0.95**2).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_set_evaluated_in_parts_gives_the_mean_of_all(name):
    make, shape = NETS[name]
    big = make_set(shape, n=3001)
    population = gv.Population(make, gv.grid(seed=range(3)), device="cpu")
    runs = gv.train(population, make_set(shape), {"big": big}, epochs=1)
    logits = runs.population(big.x)
    losses = [F.cross_entropy(z, big.y).item() for z in logits]
    hits = [(z.argmax(1) == big.y).float().mean().item() for z in logits]
    np.testing.assert_allclose(runs.last("big_loss"), losses, rtol=1e-4)
    np.testing.assert_allclose(runs.last("big_accuracy"), hits, atol=2 / 3001)


def test_out_of_memory_says_how_many_members_to_give():
    def full(logits, labels):
        if logits.requires_grad:  # not in the check before training
            raise torch.OutOfMemoryError("no room")
        return F.cross_entropy(logits, labels, reduction="none")

    words = r"3 members were trained together.*chunk=1\)\. no room"
    with pytest.raises(torch.OutOfMemoryError, match=words):
        gv.train(mlp(), make_set((12,)), epochs=1, loss=full, how="vmap")


def test_the_population_given_is_left_as_it_was():
    population = mlp()
    before = {k: p.clone() for k, p in population.params.items()}
    gv.train(population, make_set((12,)), epochs=1)
    assert all(torch.equal(p, before[k]) for k, p in population.params.items())


def test_records_are_tidy_and_true():
    train, test = make_set((12,)), make_set((12,), n=33, seed=5)
    members = gv.grid(seed=range(2), tag=["a", "b"])
    population = gv.Population(NETS["mlp"][0], members, device="cpu")
    sets = {"test": test, "validation": train}
    runs = gv.train(population, train, sets, epochs=5, batch=20, record_every=2)
    records = runs.records
    assert len(records) == 4 * 3
    assert records["epoch"].tolist() == [2, 4, 5] * 4
    assert records["step"].tolist() == [6, 12, 15] * 4
    assert records["tag"].tolist() == ["a"] * 3 + ["b"] * 3 + ["a"] * 3 + ["b"] * 3
    np.testing.assert_allclose(
        records["validation_loss"], records["train_loss"], rtol=1e-5
    )
    logits = runs.population(test.x)
    for row in range(4):
        loss = F.cross_entropy(logits[row], test.y).item()
        seed, tag = members.loc[row]
        where = {"seed": seed, "tag": tag}
        assert runs.last("test_loss", **where)[0] == pytest.approx(loss, rel=1e-5)
    assert (records["seconds"] > 0).all()


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_a_diverging_member_is_named_and_the_others_go_on(how):
    data = make_set((12,))
    members = {"seed": [0, 1, 2], "lr": [0.05, 1e30, 0.05]}
    population = gv.Population(NETS["mlp"][0], members, device="cpu")
    with pytest.warns(DivergedWarning, match=r"1 of 3 members.*'seed': 1.*smaller lr"):
        runs = gv.train(population, data, epochs=3, how=how)
    assert runs.diverged["seed"].tolist() == [1]
    ends = runs.records.groupby("member")["epoch"].max().tolist()
    assert ends == [3, 1, 3]
    alone = gv.train(population.select([2]), data, epochs=3, how=how)
    assert_same(runs.population[2], alone.population[0], 1e-5)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_bf16_is_a_choice_that_stays_near_float32(name):
    make, shape = NETS[name]
    data = make_set(shape)
    population = gv.Population(make, gv.grid(seed=range(2)), device="cpu")
    exact = gv.train(population, data, epochs=2, lr=0.02)
    rough = gv.train(population, data, epochs=2, lr=0.02, precision="bf16")
    gap = np.abs(rough.last("train_loss") / exact.last("train_loss") - 1)
    assert 0 < gap.max() < 0.05
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_diverged_members_last_loss_is_not_an_earlier_one():
    data = make_set((12,))
    population = gv.Population(NETS["mlp"][0], {"seed": [0]}, device="cpu")
    blow_up = lambda t: 1.0 if t < 0.5 else 1e30  # noqa: E731
    with pytest.warns(DivergedWarning):
        runs = gv.train(population, data, epochs=4, schedule=blow_up)
    assert len(runs.records) > 1, "the test needs a finite loss before the other"
    assert not np.isfinite(runs.last("train_loss")).any()


def test_last_tells_small_values_apart():
    members = {"seed": [0, 1], "weight_decay": [0.0, 1e-9]}
    population = gv.Population(NETS["mlp"][0], members, device="cpu")
    runs = gv.train(population, make_set((12,)), epochs=1)
    assert len(runs.last("train_loss", weight_decay=0.0)) == 1
    assert len(runs.last("train_loss", weight_decay=1e-9)) == 1


@pytest.mark.parametrize("column", ["member", "epoch", "train_loss", "test_accuracy"])
def test_a_column_that_the_records_use_is_refused(column):
    members = {"seed": [0], column: [1]}
    population = gv.Population(NETS["mlp"][0], members, device="cpu")
    with pytest.raises(ValueError, match=f"column '{column}'"):
        gv.train(population, make_set((12,)), make_set((12,)), epochs=1)


def test_a_held_out_set_named_train_is_refused():
    data = make_set((12,))
    with pytest.raises(ValueError, match='a set named "train"'):
        gv.train(mlp(), data, {"train": data}, epochs=1)


def test_last_and_first_epoch_find_their_rows():
    data = make_set((12,), n=20)
    members = gv.grid(seed=range(3), lr=[0.1, 1 / 3])
    population = gv.Population(NETS["mlp"][0], members, device="cpu")
    runs = gv.train(population, data, epochs=2)
    assert runs.last("train_loss").shape == (6,)
    assert runs.last("train_loss", lr=1 / 3).shape == (3,)
    assert np.isnan(runs.first_epoch(at_least=1.01, lr=0.1)).all()
    with pytest.raises(ValueError, match="no column 'width'"):
        runs.last("train_loss", width=3)
    with pytest.raises(ValueError, match="no run has"):
        runs.last("train_loss", lr=7.0)
    with pytest.raises(ValueError, match="no column 'valid_loss'"):
        runs.last("valid_loss")


def test_no_noise_while_the_book_is_built(capfd, monkeypatch):
    monkeypatch.setenv("GV_STATIC", "1")
    gv.train(mlp(), make_set((12,)), epochs=2)
    assert capfd.readouterr() == ("", "")


def test_a_bar_shows_when_asked(capfd):
    gv.train(mlp(), make_set((12,)), epochs=3, progress=True)
    shown = capfd.readouterr()
    assert "training" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    "change, words",
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"record_every": 1.5}, "record_every is 1.5"),
        ({"lr": 0.0}, "lr is .*must be above 0"),
        ({"momentum": 1.0}, r"momentum is .*in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay is .*at least 0"),
        ({"optimizer": "sgdm"}, '"sgd" or "adam"'),
        ({"batches": "mine"}, '"own" or "shared"'),
        ({"precision": "fp8"}, "use one of"),
        ({"how": "fast"}, '"auto", "vmap" or "loop"'),
        ({"stop_at": 1.5}, "accuracy in"),
        ({"chunk": 0}, "chunk is 0"),
    ],
)
def test_bad_settings_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        gv.train(mlp(), make_set((12,)), **{"epochs": 1, **change})


def test_data_that_do_not_fit_are_named():
    data = make_set((12,))
    with pytest.raises(ValueError, match=r"labels run from 0 to 4.*\[0, 3\)"):
        gv.train(mlp(), make_set((12,), classes=5), epochs=1)
    with pytest.raises(
        ValueError, match="labels or weights for 2 members, the population has 3"
    ):
        gv.train(mlp(), data.replace(y=data.y.expand(2, -1)), epochs=1)
    with pytest.raises(ValueError, match=r"cannot take the test set's inputs"):
        gv.train(mlp(), data, make_set((11,)), epochs=1)


def test_compile_without_a_compiler_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"install g\+\+"):
        gv.train(mlp(), make_set((12,)), epochs=1, compile=True)


def test_compile_from_a_path_with_a_space_says_so(monkeypatch):
    monkeypatch.setattr(torch, "__path__", ["/opt/my environment/torch"])
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(RuntimeError, match="a path has a space"):
        gv.train(mlp(), make_set((12,)), epochs=1, compile=True)


def test_schedules_refuse_shares_outside_training():
    for wrong in ({"warmup": 1.0}, {"warmup": -0.1}):
        with pytest.raises(ValueError, match="share of training"):
            gv.schedules.constant(**wrong)
    with pytest.raises(ValueError, match="between 0 and 1"):
        gv.schedules.step(at=[30])
    drop = gv.schedules.step(at=[0.5, 0.75], factor=0.1)
    np.testing.assert_allclose([drop(t) for t in (0, 0.5, 0.8)], [1, 0.1, 0.01])


# --- losses that change, losses that are checked ------------------------------------


def test_a_deferred_loss_changes_at_its_share_and_momentum_runs_on():
    """By hand: torch's SGD with momentum, weights from the last of four epochs on."""
    data, w = make_set((12,), n=20), [0.2, 1.0, 1.8]
    loss = gv.losses.drw(gv.losses.cross_entropy, w, at=0.75)
    options = {"lr": 0.05, "momentum": 0.9, "batch": 20}
    runs = gv.train(mlp(), data, epochs=4, loss=loss, **options)
    net = mlp()[1]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(4):
        optimizer.zero_grad()
        losses = F.cross_entropy(net(data.x), data.y, reduction="none")
        if epoch == 3:
            losses = losses * torch.tensor(w)[data.y]
        losses.mean().backward()
        optimizer.step()
    got = runs.population[1].state_dict()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(got[name], value)


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_records_hold_the_loss_in_use(how):
    data = make_set((12,))
    both = [gv.losses.cross_entropy, gv.losses.hinge]
    runs = gv.train(mlp(), data, epochs=2, how=how, loss=gv.losses.Deferred(*both, 0.5))
    logits = runs.population(data.x)
    want = [gv.losses.hinge(f, data.y).mean().item() for f in logits]
    np.testing.assert_allclose(runs.last("train_loss"), want, rtol=1e-5)
    plain = gv.train(mlp(), data, epochs=2, how=how)
    first = [r.records.query("epoch == 1")["train_loss"] for r in (runs, plain)]
    np.testing.assert_array_equal(*first)


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_a_loss_that_does_not_fit_is_refused_before_training(how):
    bad = functools.partial(gv.losses.vs, counts=(5, 5))
    loss = gv.losses.Deferred(gv.losses.cross_entropy, bad)
    with pytest.raises(ValueError, match=r"counts .*\(2,\).*3 classes"):
        gv.train(mlp(), make_set((12,)), epochs=1, how=how, loss=loss)
    with pytest.raises(ValueError, match="one loss per sample"):
        gv.train(mlp(), make_set((12,)), epochs=1, how=how, loss=F.cross_entropy)


def test_ldam_on_a_linear_head_is_warned_about_though_it_runs_in_vmap():
    data = make_set((12,))
    loss = functools.partial(gv.losses.ldam, counts=(9, 5, 3))
    with pytest.warns(gv.losses.NotCosineWarning, match="head="):
        gv.train(mlp(), data.replace(x=100 * data.x), epochs=1, lr=1e-9, loss=loss)
    cosine = gv.Population(
        lambda: MLP(12, 16, 3, head="cosine"), gv.grid(seed=range(3)), device="cpu"
    )
    gv.train(cosine, data, epochs=1, loss=loss)


def test_weights_that_sum_to_zero_are_refused():
    weights = torch.ones(3, 50)
    weights[1] = 0
    with pytest.raises(ValueError, match="sum to zero"):
        gv.train(mlp(), make_set((12,)).replace(weights=weights), epochs=1)


@pytest.mark.parametrize("compile", COMPILE[1:])
def test_losses_with_counts_compile(compile):
    loss = gv.losses.drw(functools.partial(gv.losses.vs, counts=(9, 5, 3)), [1, 1, 2])
    got, want = (
        gv.train(mlp(), make_set((12,)), epochs=2, loss=loss, compile=c)
        for c in (compile, False)
    )
    np.testing.assert_allclose(got.last("train_loss"), want.last("train_loss"), 1e-4)
