"""The networks are the ones their docstrings describe."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from gvlib.models import CNN, MLP, Dropout, ResNet


def test_mlp_is_the_written_out_network():
    net = MLP(6, 5, 4, 3, activation="tanh")
    x = torch.randn(7, 2, 3)
    h = x.reshape(7, 6)
    for layer in net.layers[:-1]:
        h = torch.tanh(h @ layer.weight.T + layer.bias)
    want = h @ net.layers[-1].weight.T + net.layers[-1].bias
    torch.testing.assert_close(net(x), want)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sin", "gelu", "softplus"])
def test_activations_by_name(activation):
    assert MLP(2, 3, 2, activation=activation)(torch.ones(1, 2)).shape == (1, 2)


def test_mlp_without_bias_maps_zero_to_zero():
    assert not MLP(4, 8, 3, bias=False)(torch.zeros(2, 4)).any()


def test_cnn_pools_before_relu_with_the_same_result():
    net = CNN((4, 8), shape=(3, 8, 8), classes=5)
    x = torch.randn(2, 3, 8, 8)
    h = x
    for convolution in net.convolutions:
        h = nn.functional.max_pool2d(torch.relu(convolution(h)), 2)
    assert torch.equal(net(x), net.linear(h.flatten(1)))


@pytest.mark.parametrize("n, layers", [(1, 8), (3, 20), (9, 56)])
def test_resnet_has_6n_plus_2_layers(n, layers):
    weights = [m for m in ResNet(n).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weights) == layers


def test_resnet20_has_the_parameters_of_the_paper():
    # He et al. 2016, table 6: 0.27 million for ResNet-20
    count = sum(p.numel() for p in ResNet(3).parameters())
    assert round(count / 1e6, 2) == 0.27


def test_without_skips_only_the_additions_go():
    with_skip, without = ResNet(2, width=4), ResNet(2, width=4, skip=False)
    without.load_state_dict(with_skip.state_dict())  # the same parameters, name by name
    x = torch.randn(3, 3, 16, 16)
    assert not torch.allclose(with_skip(x), without(x))


@pytest.mark.parametrize("norm", ["batch", "layer", None])
def test_resnet_takes_each_norm_and_keeps_the_signal_finite(norm):
    out = ResNet(2, width=4, norm=norm)(torch.randn(4, 3, 16, 16))
    assert out.shape == (4, 10)
    assert out.isfinite().all()


def test_layer_norm_has_no_batch_dependence():
    net = ResNet(1, width=4, norm="layer")
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(net(x)[:1], net(x[:1]))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate):
    n = 40_000
    out = Dropout(rate, key=3)(torch.ones(n // 100, 100))
    dropped = (out == 0).float().mean().item()
    # 5 standard deviations of a binomial share
    assert abs(dropped - rate) <= 5 * math.sqrt(rate * (1 - rate) / n)
    kept = out[out != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)))


def test_dropout_masks_look_independent_over_calls_keys_and_positions():
    layer, n = Dropout(0.5, key=1), 65_536
    masks = [layer(torch.ones(256, 256)).flatten() != 0 for _ in range(3)]
    masks += [Dropout(0.5, key=k)(torch.ones(256, 256)).flatten() != 0 for k in (2, 3)]
    masks += [masks[0].roll(shift) for shift in (1, 2, 256)]
    table = torch.stack(masks).float() * 2 - 1
    agreement = table @ table.T / n
    off = agreement - torch.eye(len(masks))
    assert off.abs().max() < 5 / math.sqrt(n)


def test_dropout_is_the_identity_in_evaluation():
    x = torch.randn(4, 4)
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_dropout_mask_is_the_same_alone_and_stacked():
    layers = [Dropout(0.3, key=k) for k in (5, 6)]
    buffers = {
        name: torch.stack([dict(layer.named_buffers())[name] for layer in layers])
        for name in ("rate", "key", "calls")
    }
    x = torch.ones(2, 8, 8)
    stacked = vmap(lambda b, x: functional_call(layers[0], b, (x,)))(buffers, x)
    alone = torch.stack([layer(x[0]) for layer in layers])
    assert torch.equal(stacked, alone)
    assert buffers["calls"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: MLP(3), "at least input and output"),
        (lambda: MLP(3, 2, activation="step"), "use one of relu"),
        (lambda: MLP(3, 4, 2, dropout=1.0), r"lie in \[0, 1\)"),
        (lambda: CNN((4,) * 5, shape=(1, 28, 28)), "leave nothing"),
        (lambda: ResNet(0), "at least one block"),
        (lambda: ResNet(1, norm="group"), '"batch", "layer" or None'),
    ],
)
def test_bad_sizes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
