"""What is measured: four families of networks, and the ways to train each."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import gvlib as gv
from gvlib.models import CNN, MLP

SEED = 0
BATCH = 64


@dataclass(frozen=True)
class Family:
    """Some networks of one shape, their data, and how long each way is timed.

    `epochs` and `loop_epochs` are timed after one more that is not; `networks` is how
    many the plain loops train, whose speed does not depend on it.
    """

    name: str
    network: str
    make: Callable[[], torch.nn.Module]
    members: int
    examples: int
    epochs: int
    networks: int
    loop_epochs: int
    ways: dict[str, dict]  # label -> arguments of gvlib.train

    def data(self, device):
        """Two spirals for networks with two inputs, Fashion-MNIST for the others."""
        if self.network.startswith("MLP 2-"):
            made = gv.data.two_spirals(self.examples, noise=0.1, turns=1, seed=SEED)
            return made.to(device)
        return gv.data.load("fashion-mnist", n_train=self.examples, device=device)[0]

    def flops(self):
        """Of one step of one network: products and convolutions, both directions."""
        net = self.make()
        x = torch.zeros(BATCH, *((2,) if "2-" in self.network[:6] else (1, 28, 28)))
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(net(x), torch.zeros(BATCH, dtype=torch.long)).backward()
        return counter.get_total_flops()

    def smaller(self):
        """A smoke test: few members, one epoch, nothing compiled."""
        ways = {k: v for k, v in self.ways.items() if not v.get("compile")}
        return replace(
            self,
            members=3,
            examples=128,
            epochs=1,
            networks=1,
            loop_epochs=1,
            ways=ways,
        )


PLAIN = {"population": {}}
COMPILED = {"compiled, shared batches": {"compile": True, "batches": "shared"}}
BF16 = {"population, bf16": {"precision": "bf16"}}

FAMILIES = [
    Family(
        "64 small MLPs", "MLP 2-32-32-2", lambda: MLP(2, 32, 32, 2), 64, 512,
        epochs=40, networks=8, loop_epochs=15,
        ways=PLAIN | {"compiled": {"compile": True}} | COMPILED,
    ),
    Family(
        "512 small MLPs", "MLP 2-32-32-2", lambda: MLP(2, 32, 32, 2), 512, 512,
        epochs=10, networks=8, loop_epochs=15, ways=PLAIN | COMPILED,
    ),
    Family(
        "64 image MLPs", "MLP 784-512-10", lambda: MLP(784, 512, 10), 64, 1024,
        epochs=2, networks=2, loop_epochs=6, ways=PLAIN | COMPILED | BF16,
    ),
    Family(
        "16 small CNNs", "CNN 1-16-32, 28x28", lambda: CNN((16, 32)), 16, 512,
        epochs=2, networks=2, loop_epochs=2, ways=PLAIN | BF16,
    ),
]  # fmt: skip
