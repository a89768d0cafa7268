"""A small experiment for the tests: random labels on two moons, memorized live."""

import torch
import torch.nn.functional as F

import gvlib as gv
from gvlib.live import Experiment
from gvlib.playground import Playground

NET = {"w1": "2 h", "b1": "h", "w2": "h h", "b2": "h", "w3": "h 2", "b3": "2"}
WIDTHS = [4, 16, 64]
RATES = [0.01, 0.03, 0.1, 0.3, 1.0, 1e20]


def logits(params, x):
    """A network with two hidden layers."""
    x = F.relu(x @ params["w1"] + params["b1"])
    x = F.relu(x @ params["w2"] + params["b2"])
    return x @ params["w3"] + params["b3"]


def corrupted(y, other, order, noise):
    """Labels of which a share `noise` is replaced; more noise replaces more of them."""
    return torch.where(order < noise, other, y)


def train(params, velocity, x, y, other, order, noise, lr, weight_decay):
    """One step of SGD with momentum 0.9, on all points."""

    def loss_of(params):
        return F.cross_entropy(logits(params, x), corrupted(y, other, order, noise))

    slopes, loss = torch.func.grad_and_value(loss_of)(params)
    velocity = {
        k: 0.9 * velocity[k] + slopes[k] + weight_decay * params[k] for k in slopes
    }
    params = {k: params[k] - lr * velocity[k] for k in slopes}
    return {"params": params, "velocity": velocity, "loss": loss}


def predict(params, grid):
    """Positive for class 1."""
    z = logits(params, grid)
    return {"score": z[:, 1] - z[:, 0]}


def measure(params, x, y, other, order, noise, x_test, y_test):
    """Accuracies, and the labels that are trained on."""
    shown = corrupted(y, other, order, noise)
    right = lambda x, y: (logits(params, x).argmax(1) == y).float().mean()  # noqa: E731
    return {
        "shown": shown,
        "train_accuracy": right(x, shown),
        "test_accuracy": right(x_test, y_test),
    }


LAB = Experiment(
    "test-lab",
    [train, predict, measure],
    params=NET,
    velocity=NET,
    x="n 2",
    y="n int",
    other="n int",
    order="n",
    noise="",
    lr="",
    weight_decay="",
    grid="g 2",
    x_test="m 2",
    y_test="m int",
)


def initial(h, seed=0):
    """Data, and weights for this width."""
    points = gv.data.moons(160, noise=0.15, seed=seed)
    test = gv.data.moons(200, noise=0.15, seed=seed + 1)
    g = torch.Generator().manual_seed(seed)
    sizes = {
        "w1": (2, h),
        "b1": (h,),
        "w2": (h, h),
        "b2": (h,),
        "w3": (h, 2),
        "b3": (2,),
    }
    params = {
        k: torch.randn(s, generator=g) * (2 / s[0]) ** 0.5 * (len(s) > 1)
        for k, s in sizes.items()
    }
    return {
        "params": params,
        "velocity": {k: torch.zeros_like(v) for k, v in params.items()},
        "x": points.x,
        "y": points.y,
        "other": torch.randint(2, (160,), generator=g),
        "order": torch.rand(160, generator=g),
        "x_test": test.x,
        "y_test": test.y,
    }


def playground(**changes):
    """The widget of the tests."""
    options = {
        "initial": initial,
        "sliders": {
            "noise": [k / 10 for k in range(11)],
            "h": WIDTHS,
            "lr": RATES,
            "weight_decay": [0.0, 0.0001, 0.001, 0.01],
        },
        "points": ("x", "shown"),
        "test_points": ("x_test", "y_test"),
        "title": "Memorize noise",
        "alt": "A network's decision boundary among the points of two moons.",
        "caption": "Drag the noise while it trains.",
        "labels": {"noise": "label noise", "h": "width"},
        "formats": {"noise": "percent"},
        "start": {"noise": 0.2, "h": 16, "lr": 0.1, "weight_decay": 0.0},
        "id": "noise",
    }
    return Playground(LAB, **options | changes)
