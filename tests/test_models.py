"""The networks are the ones their docstrings describe."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from gvlib.models import CNN, MLP, ByrdCNN, CosineLinear, Dropout, ResNet


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


# ------------------------------------------------------------- cosine heads, Byrd's CNN


@pytest.mark.parametrize(
    "make",
    [
        lambda head: MLP(3 * 20 * 20, 8, 5, head=head),
        lambda head: CNN((4,), shape=(3, 20, 20), classes=5, head=head),
        lambda head: ByrdCNN(8, shape=(3, 20, 20), classes=5, head=head),
        lambda head: ResNet(1, width=4, classes=5, head=head),
    ],
)
def test_a_cosine_head_gives_the_cosines_of_features_and_class_vectors(make):
    net = make("cosine")
    (head,) = (m for m in net.modules() if isinstance(m, CosineLinear))
    features = []
    head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    got = net(torch.randn(6, 3, 20, 20))
    h, w = features[0].double(), head.weight.double()
    lengths = (h.norm(dim=1)[:, None] * w.norm(dim=1)).clamp(min=1e-12)
    want = (h @ w.T) / lengths
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, CosineLinear) for m in make("linear").modules())
    with pytest.raises(ValueError, match="head is 'round'"):
        make("round")


def test_a_cosine_head_starts_on_the_unit_sphere_and_bears_dead_features():
    head = CosineLinear(7, 4)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(4))
    h = torch.zeros(2, 7, requires_grad=True)
    (slope,) = torch.autograd.grad(head(h).sum(), h)
    assert not head(h).any()
    assert slope.isfinite().all()


def test_byrds_network_is_the_papers():
    net = ByrdCNN(classes=2)
    shapes = [
        (m.in_channels, m.out_channels)
        if isinstance(m, nn.Conv2d)
        else (m.in_features, m.out_features)
        for m in net.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    convolutions = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 128)]
    assert shapes == [*convolutions, (2048, 512), (512, 128), (128, 2)]
    layers = []
    for i, convolution in enumerate(net.convolutions):
        layers += [convolution, nn.ReLU()] + [nn.MaxPool2d(2)] * (i in (1, 4))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x), net.linear(nn.Sequential(*layers)(x)))


def test_byrds_network_refuses_small_images_and_takes_dropout():
    assert ByrdCNN(2, shape=(1, 20, 20))(torch.zeros(3, 1, 20, 20)).shape == (3, 2)
    assert ByrdCNN(2, shape=(1, 28, 28))(torch.zeros(3, 1, 28, 28)).shape == (3, 2)
    with pytest.raises(ValueError, match="too small; 20 a side"):
        ByrdCNN(2, shape=(1, 18, 28))
    drops = [m for m in ByrdCNN(2, dropout=0.5).modules() if isinstance(m, Dropout)]
    assert len(drops) == 2
