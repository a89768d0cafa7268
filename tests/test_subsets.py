"""Imbalanced subsets, classes, groups, and accuracy class by class."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gvlib as gv
from gvlib import data
from gvlib.data import Dataset
from gvlib.models import MLP


def numbered(n=60, classes=3, *, names=False, weights=False):
    """Examples whose x is their position, so that each can be told from the others."""
    x = torch.arange(float(n))[:, None] * torch.ones(2)
    y = torch.arange(n) % classes
    called = ("car", "dog", "cat", "frog", "ship")[:classes] if names else ()
    return Dataset(x, y, torch.rand(n) if weights else None, "made", called)


def positions(part):
    return part.x[:, 0].long().tolist()


# ------------------------------------------------------------------------------- counts


def test_long_tails_have_the_papers_counts():
    cifar10 = data.long_tail_counts(5000, 10, 100)
    assert cifar10 == (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    assert sum(cifar10) == 12_406
    assert sum(data.long_tail_counts(500, 100, 100)) == 10_847
    assert data.long_tail_counts(5000, 10, 10)[-1] == 500


def test_steps_have_the_papers_counts():
    assert data.step_counts(5000, 10, 100) == (5000,) * 5 + (50,) * 5
    assert sum(data.step_counts(5000, 10, 100)) == 25_250
    assert sum(data.step_counts(5000, 10, 10)) == 27_500
    assert data.step_counts(9, 3, 3) == (9, 9, 3)


profiles = pytest.mark.parametrize("profile", [data.long_tail_counts, data.step_counts])


@profiles
@settings(max_examples=60, deadline=None)
@given(st.integers(100, 5000), st.integers(2, 100), st.integers(1, 100))
def test_counts_fall_from_n_max_to_its_share(profile, n_max, classes, factor):
    counts = profile(n_max, classes, factor)
    assert (len(counts), counts[0]) == (classes, n_max)
    assert counts[-1] == n_max // factor  # exact: no 49 where 50 is meant
    assert list(counts) == sorted(counts, reverse=True)


@profiles
@pytest.mark.parametrize(
    "arguments, error, says",
    [
        ((5000, 10, 0.01), ValueError, "factor is 0.01, expected 1 or more"),
        ((5000, 10, math.inf), ValueError, "factor is inf"),
        ((5000, 10, math.nan), ValueError, "factor is nan"),
        ((0, 10, 10), ValueError, "n_max is 0"),
        ((10, 1, 10), ValueError, "n_classes 1"),
        ((50, 10, 100), ValueError, "rarest class would be absent"),
        ((50.5, 10, 10), TypeError, "n_max is 50.5, expected a whole number"),
    ],
)
def test_counts_refuse(profile, arguments, error, says):
    with pytest.raises(error, match=says):
        profile(*arguments)


def test_class_counts_know_absent_classes_and_members():
    ds = numbered(4, 4, names=True)[:3]
    assert data.class_counts(ds) == (1, 1, 1, 0)
    same = ds.replace(y=torch.tensor([[0, 1, 1], [1, 0, 1]]))
    assert data.class_counts(same) == (1, 2, 0, 0)
    with pytest.raises(ValueError, match="differ in their class counts"):
        data.class_counts(ds.replace(y=torch.tensor([[0, 1, 1], [0, 0, 1]])))


# ---------------------------------------------------------------------------- the draws


def test_a_draw_is_seeded_nested_and_without_replacement():
    y = numbered().y
    one, again = (data.draw(y, (10, 5, 20), seed=3) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, data.draw(y, (10, 5, 20), seed=4))
    assert len(one.unique()) == 35
    assert y[one].bincount().tolist() == [10, 5, 20]
    assert torch.equal(one, one.sort().values)
    fewer = data.draw(y, (4, 5, 0), seed=3)
    assert set(fewer.tolist()) <= set(one.tolist())


def test_every_example_is_drawn_equally_often():
    y, trials = torch.zeros(10, dtype=torch.int64), 2000
    hits = sum(data.draw(y, (3,), seed=s).bincount(minlength=10) for s in range(trials))
    # binomial(2000, 0.3): a standard deviation of 20.5; 5 of them in 10 draws
    assert (hits - 0.3 * trials).abs().max() < 5 * 20.5


@pytest.mark.parametrize(
    "counts, seed, error, says",
    [
        ((21, 1, 1), 0, ValueError, "21 examples of class 0 .* 0 to 20"),
        ((-1, 1, 1), 0, ValueError, "-1 examples of class 0"),
        ((1, 1), 0, ValueError, "labels of draw.* 0 to 2, expected 0 to 1"),
        ((1, 1, 0.5), 0, TypeError, "count of class 2 is 0.5"),
        ((1, 1, 1), -1, ValueError, "seed is -1"),
    ],
)
def test_draw_refuses(counts, seed, error, says):
    with pytest.raises(error, match=says):
        data.draw(numbered().y, counts, seed=seed)


def test_a_long_tail_is_drawn_from_the_set():
    full = numbered(300, names=True, weights=True)
    part = data.long_tailed(full, 100, seed=1)
    assert data.class_counts(part) == (100, 10, 1)
    assert part.classes == full.classes
    at = positions(part)
    assert at == sorted(set(at))
    assert torch.equal(part.y, full.y[at])
    assert torch.equal(part.weights, full.weights[at])
    other = data.long_tailed(full, 100, seed=2)
    assert positions(other) != at


def test_the_order_says_which_class_is_frequent():
    ds = numbered(300)
    part = data.long_tailed(ds, 25, seed=0, order=(1, 2, 0), n_max=50)
    assert data.class_counts(part) == (2, 50, 10)
    part = data.step_imbalanced(ds, 25, seed=0, order=(1, 2, 0), n_max=50)
    assert data.class_counts(part) == (2, 50, 50)


def test_a_step_of_fashion_mnist():
    train, _ = data.load("fashion-mnist", device="cpu")
    part = data.step_imbalanced(train, 100, seed=0, n_max=900)
    assert data.class_counts(part) == (900,) * 5 + (9,) * 5
    assert part.n_classes == 10


def test_n_max_is_what_the_smallest_class_has():
    ds = numbered()[:58]  # classes of 20, 19 and 19
    assert data.class_counts(data.step_imbalanced(ds, 2, seed=0)) == (19, 19, 9)


def test_subsets_refuse():
    ds = numbered()
    with pytest.raises(ValueError, match="each of the 3 classes of made"):
        data.subset(ds, (1, 2), seed=0)
    with pytest.raises(ValueError, match=r"absent from training.*drop_classes"):
        data.subset(ds, (1, 2, 0), seed=0)
    for order in ((0, 1), (0, 1, 1), (0, 1, 3)):
        with pytest.raises(ValueError, match="expected each of 3 classes once"):
            data.long_tailed(ds, 10, seed=0, order=order)
    with pytest.raises(ValueError, match="21 examples of class 0"):
        data.long_tailed(ds, 10, seed=0, n_max=21)


@pytest.mark.parametrize(
    "take",
    [
        lambda ds: data.subset(ds, (1, 1, 1), seed=0),
        lambda ds: data.long_tailed(ds, 2, seed=0),
        lambda ds: data.undersample(ds, seed=0),
        lambda ds: data.oversample(ds, seed=0),
        lambda ds: data.holdout(ds, 1, seed=0),
        lambda ds: data.take_classes(ds, (0, 1)),
        data.by_class,
    ],
)
def test_sets_that_differ_between_members_are_stacked_after_the_draw(take):
    with pytest.raises(ValueError, match=r"for 2 members.*stack\(\)"):
        take(data.stack([numbered(), numbered()]))


# ----------------------------------------------------------------- re-sampling, holdout


def test_undersampling_takes_the_rarest_classs_number():
    part = data.undersample(numbered()[:58], seed=0)
    assert data.class_counts(part) == (19, 19, 19)
    assert len(set(positions(part))) == 57


def test_oversampling_shows_all_of_a_class_equally_often():
    long = data.long_tailed(numbered(300), 30, seed=0)
    assert data.class_counts(long) == (100, 18, 3)
    part = data.oversample(long, seed=0)
    assert data.class_counts(part) == (100, 100, 100)
    for c, (low, high) in enumerate([(1, 1), (5, 6), (33, 34)]):
        times = np.unique(positions(part[part.y == c]), return_counts=True)[1]
        assert (times.min(), times.max()) == (low, high)
    assert set(positions(part)) == set(positions(long))


def test_oversampling_refuses_a_class_without_examples():
    with pytest.raises(ValueError, match="class 2 of made has no examples to repeat"):
        data.oversample(numbered(3, names=True)[:2], seed=0)


def test_a_holdout_is_balanced_and_disjoint():
    rest, held = data.holdout(numbered(), 4, seed=0)
    assert data.class_counts(held) == (4, 4, 4)
    assert sorted(positions(rest) + positions(held)) == list(range(60))
    for per_class in (0, 21):
        with pytest.raises(ValueError, match="expected"):
            data.holdout(numbered(), per_class, seed=0)


def test_stacked_subsets_train_each_member_on_its_own():
    full = numbered(120)
    full = full.replace(x=(full.x - 60) / 60)
    parts = [data.long_tailed(full, 10, seed=s) for s in (0, 1)]
    both = data.stack(parts)
    assert (both.own_x, both.members, len(both)) == (True, 2, len(parts[0]))

    def nets(seeds):
        return gv.Population(lambda: MLP(2, 4, 3), {"seed": seeds}, device="cpu")

    runs = gv.train(nets([0, 1]), both, epochs=2)
    for m, part in enumerate(parts):
        alone = gv.train(nets([m]), part, epochs=2)
        got, want = runs.last("train_loss")[m], alone.last("train_loss")[0]
        assert got == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    "sets",
    [
        [],
        [numbered(), numbered()[:30]],
        [numbered(), numbered(names=True)],
        [numbered(), numbered(weights=True)],
    ],
)
def test_sets_that_differ_are_not_stacked(sets):
    with pytest.raises(ValueError, match="sets to stack must have one shape"):
        data.stack(sets)


def test_stacked_weights_stay_with_their_examples():
    sets = [numbered(weights=True), numbered(weights=True)]
    both = data.stack(sets)
    assert torch.equal(both.weights, torch.stack([s.weights for s in sets]))


# --------------------------------------------------------------------- classes, groups


def test_a_pair_of_classes_is_numbered_in_its_order():
    ds = numbered(50, 5, names=True, weights=True)
    pair = data.take_classes(ds, ("cat", "dog"))
    at = positions(pair)
    assert all(ds.y[at] == torch.tensor([2, 1])[pair.y])
    assert (len(pair), pair.classes) == (20, ("cat", "dog"))
    assert torch.equal(pair.weights, ds.weights[at])
    same = data.take_classes(ds, (2, "dog"))
    assert torch.equal(same.y, pair.y)
    assert same.classes == pair.classes


def test_taken_and_dropped_classes_are_the_whole():
    ds = numbered(50, 5, names=True)
    pair = data.take_classes(ds, ("cat", "dog"))
    others = data.drop_classes(ds, ("cat", "dog"))
    assert others.classes == ("car", "frog", "ship")
    assert others.y.unique().tolist() == [0, 1, 2]
    assert sorted(positions(pair) + positions(others)) == list(range(50))


def test_classes_without_names_keep_their_numbers_as_names():
    assert data.take_classes(numbered(), (2, 0)).classes == ("2", "0")


@pytest.mark.parametrize(
    "classes, says",
    [
        ("cat", "expected several"),
        ((), "expected several"),
        (("cat", "cow"), "no class 'cow' in made, which has car, dog, cat"),
        ((0, 3), "no class 3"),
        (("cat", 2), "expected each once"),
    ],
)
def test_unknown_classes_are_refused(classes, says):
    for function in (data.take_classes, data.drop_classes):
        with pytest.raises(ValueError, match=says):
            function(numbered(names=True), classes)


def test_classes_without_examples_or_none_left_are_refused():
    ds = numbered(3, names=True)
    with pytest.raises(ValueError, match="class 2 of made has no examples"):
        data.take_classes(ds[:2], ("car", "cat"))
    with pytest.raises(ValueError, match="no class of made is left"):
        data.drop_classes(ds, (0, 1, 2))


def test_the_accuracy_on_one_label_is_the_share_called_so():
    pair = data.take_classes(numbered(50, 5, names=True), ("cat", "dog"))
    ships = data.drop_classes(numbered(50, 5, names=True), ("cat", "dog"))
    nets = gv.Population(lambda: MLP(2, 8, 2), {"seed": [0, 1]}, device="cpu")
    called = {"ships": data.all_labelled(ships, "dog", pair.classes)}
    runs = gv.train(nets, pair, called, epochs=1, lr=1e-3)
    share = (runs.population(ships.x).argmax(-1) == 1).float().mean(-1)
    np.testing.assert_allclose(runs.last("ships_accuracy"), share)
    assert data.all_labelled(pair, 0).y.unique().tolist() == [0]


def test_all_labelled_refuses_what_is_no_class():
    ds = numbered(names=True)
    with pytest.raises(ValueError, match="no class 'cow' among car, dog, cat"):
        data.all_labelled(ds, "cow")
    with pytest.raises(ValueError, match="expected 0 to 2"):
        data.all_labelled(ds, 3)
    with pytest.raises(TypeError, match=r"label is 0\.5"):
        data.all_labelled(ds, 0.5)


def test_class_weights_become_the_examples_and_leave_the_rate_alone():
    ds = numbered()[:50]
    table = torch.tensor([[1.0, 1.0, 1.0], [64.0, 1.0, 1 / 64]])
    weights = data.weigh_classes(ds, table).weights
    assert weights.shape == (2, 50)
    assert torch.equal(weights[0], torch.ones(50))
    np.testing.assert_allclose(weights.mean(-1), [1, 1], rtol=1e-6)
    np.testing.assert_allclose(weights[1, 0] / weights[1, 1], 64, rtol=1e-6)
    plain = data.weigh_classes(ds, table, normalize=False).weights
    assert torch.equal(plain, table[:, ds.y])
    assert data.weigh_classes(ds, (1, 2, 3)).weights.shape == (50,)


def test_class_weights_follow_members_own_labels():
    ds = numbered(4, 2).replace(y=torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]))
    table = [[1.0, 2.0], [3.0, 4.0]]
    got = data.weigh_classes(ds, table, normalize=False).weights
    assert got.tolist() == [[1, 1, 2, 2], [3, 4, 4, 4]]
    shared = data.weigh_classes(ds, table[0], normalize=False).weights
    assert shared.tolist() == [[1, 1, 2, 2], [1, 2, 2, 2]]
    with pytest.raises(ValueError, match=r"3 members .* for 2"):
        data.weigh_classes(ds, [[1.0, 2.0]] * 3)


@pytest.mark.parametrize(
    "weights", [(1, 2), 1.0, (1, 2, 0), (1, -1, 1), (1, 1, np.nan)]
)
def test_wrong_class_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        data.weigh_classes(numbered(), weights)


def test_class_weights_train_like_the_weighted_loss():
    ds = numbered(40, 2)
    ds = ds.replace(x=ds.x / 40)
    nets = gv.Population(lambda: MLP(2, 4, 2), {"seed": [0, 1]}, device="cpu")
    table = torch.tensor([[1.0, 3.0], [5.0, 1.0]])
    runs = gv.train(nets, data.weigh_classes(ds, table), epochs=2)
    for m, weights in enumerate(table):
        loss = partial(gv.losses.cross_entropy, weights=weights / weights.mean())
        alone = gv.train(nets, ds, epochs=2, loss=loss).population
        for name, p in alone.params.items():
            torch.testing.assert_close(runs.population.params[name][m], p[m])


def test_parts_by_class_and_group_are_the_whole():
    ds = numbered(50, 5, names=True)
    parts = data.by_class(ds)
    assert list(parts) == list(ds.classes)
    assert all(p.y.unique().tolist() == [c] for c, p in enumerate(parts.values()))
    groups = torch.arange(50) // 20
    parts = data.by_group(ds, groups, ("early", "middle", "late", "never"))
    assert {k: positions(p) for k, p in parts.items()} == {
        "early": list(range(20)),
        "middle": list(range(20, 40)),
        "late": list(range(40, 50)),
    }


def test_accuracies_by_class_are_recorded_in_training():
    ds = numbered(names=True)
    nets = gv.Population(lambda: MLP(2, 4, 3), {"seed": [0]}, device="cpu")
    runs = gv.train(nets, ds, data.by_class(ds), epochs=1, lr=1e-3)
    want = data.class_accuracy(runs.population(ds.x), ds.y)[0]
    got = [runs.last(f"{name}_accuracy")[0] for name in ds.classes]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_group_split_has_the_counts_of_its_cells():
    ds, groups = numbered(60, 2), torch.arange(60) // 30
    counts = [[12, 1], [0, 15]]
    part, kept = data.group_split(ds, groups, counts, seed=0)
    cells = [[int(((part.y == c) & (kept == g)).sum()) for g in (0, 1)] for c in (0, 1)]
    assert cells == counts
    assert torch.equal(kept, groups[positions(part)])


def test_groups_that_do_not_fit_are_refused():
    ds, groups = numbered(60, 2), torch.arange(60) // 30
    with pytest.raises(ValueError, match="expected int64 of shape"):
        data.by_group(ds, groups[:5])
    with pytest.raises(ValueError, match="expected int64 of shape"):
        data.by_group(ds, groups.float())
    with pytest.raises(ValueError, match="groups of made run from 0 to 1"):
        data.by_group(ds, groups, ("one",))
    for counts in ([[1, 1]], [[1, 1], [1]], [[1, 1]] * 3):
        with pytest.raises(ValueError, match="a row for each of 2 classes"):
            data.group_split(ds, groups, counts, seed=0)
    with pytest.raises(ValueError, match="groups of made run from 0 to 1"):
        data.group_split(ds, groups, [[1], [1]], seed=0)
    with pytest.raises(ValueError, match="16 examples"):
        data.group_split(ds, groups, [[16, 1], [1, 1]], seed=0)


# ----------------------------------------------------------------- accuracy, class-wise


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 30), st.integers(0, 2**32))
def test_class_accuracy_is_recall(classes, members, extra, seed):
    random = torch.Generator().manual_seed(seed)
    more = torch.randint(classes, (extra,), generator=random)
    y = torch.cat([torch.arange(classes), more])
    f = torch.randn(members, len(y), classes, generator=random)
    by_class, balanced = data.class_accuracy(f, y), data.balanced_accuracy(f, y)
    for m in range(members):
        guesses = [max(range(classes), key=row.__getitem__) for row in f[m].tolist()]
        pairs = list(zip(guesses, y.tolist(), strict=True))
        recall = [
            sum(pair == (c, c) for pair in pairs) / sum(true == c for _, true in pairs)
            for c in range(classes)
        ]
        np.testing.assert_allclose(by_class[m], recall)
        assert balanced[m].item() == pytest.approx(sum(recall) / classes)
    torch.testing.assert_close(data.class_accuracy(f, y.expand(members, -1)), by_class)
    torch.testing.assert_close(data.class_accuracy(f[0], y), by_class[0])


def test_accuracy_of_what_is_not_there_is_refused():
    f = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match="class 1 has no examples"):
        data.class_accuracy(f, torch.tensor([0, 2, 2, 0]))
    with pytest.raises(ValueError, match="expected 0 to 2"):
        data.class_accuracy(f, torch.tensor([0, 1, 2, 3]))
    with pytest.raises(ValueError, match="logits have shape"):
        data.class_accuracy(f, torch.tensor([0, 1, 2]))
