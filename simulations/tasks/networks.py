"""The networks of the built-in tasks. Needs torch.

Each is a ``body`` and a last linear layer ``head``, so that ``head.*`` names the personal part everywhere (FedPer).
None has BatchNorm, whose statistics over a batch forbid per-example gradients (Opacus) and are biased on skewed
clients. Shapes are fixed but for the batch, which is what ONNX export wants. Strides instead of pooling make one pass
over MNIST's 60 000 images a matter of seconds on one core.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

from fedpress.errors import MissingExtra

try:
    from torch import Tensor, nn
    from torch.nn import functional
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("A built-in task's model", "torch") from error


def mlp(*sizes: int) -> nn.Module:
    """Linear layers with ReLU between: float[n, sizes[0]] to logits[n, sizes[-1]]. Two sizes make a linear model."""
    *widths, classes = sizes
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return _network(layers, nn.Linear(widths[-1], classes))


def cnn(channels: tuple[int, int], hidden: int, classes: int) -> nn.Module:
    """Two strided convolutions and a hidden layer: float[n, 1, 28, 28] to logits[n, classes]."""
    return _network(_convolutions(channels, hidden, nn.ReLU), nn.Linear(hidden, classes))


def tanh_cnn(channels: tuple[int, int], hidden: int, classes: int) -> nn.Module:
    """As ``cnn``, to be trained under noise. Tanh keeps gradients short, so that clipping takes less from them
    (Papernot et al. 2021, "Tempered Sigmoid Activations for Deep Learning with Differential Privacy"); each image is
    scaled to mean 0 and deviation 1 by itself, which costs no privacy.
    """
    alone = nn.GroupNorm(num_groups=1, num_channels=1, affine=False)
    return _network([alone, *_convolutions(channels, hidden, nn.Tanh)], nn.Linear(hidden, classes))


def _convolutions(channels: tuple[int, int], hidden: int, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """What both networks for images of 28 x 28 have below their head."""
    first, second = channels
    return [
        nn.Conv2d(1, first, kernel_size=5, stride=2, padding=2),
        activation(),
        nn.Conv2d(first, second, kernel_size=3, stride=2, padding=1),
        activation(),
        nn.Flatten(),
        nn.Linear(second * 7 * 7, hidden),
        activation(),
    ]


def signal_cnn(channels: Sequence[int], classes: int) -> nn.Module:
    """Strided convolutions over time, then the mean over time: float[n, channels[0], time] to logits[n, classes]."""
    layers: list[nn.Module] = []
    for width, following in pairwise(channels):
        layers += [
            nn.Conv1d(width, following, kernel_size=5, stride=2, padding=2),
            nn.GroupNorm(num_groups=4, num_channels=following),
            nn.ReLU(),
        ]
    return _network([*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten()], nn.Linear(channels[-1], classes))


def next_symbol(symbols: int, channels: int, layers: int) -> nn.Module:
    """Causal gated convolutions over a sequence: int[n, time] to logits[n, time, symbols]."""
    gates = [CausalGate(channels, dilation=2**depth) for depth in range(layers)]
    return _network([nn.Embedding(symbols, channels), *gates], nn.Linear(channels, symbols))


class CausalGate(nn.Module):
    """A residual gated linear unit (Dauphin et al. 2017) over a position and the two at ``dilation`` before it."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.convolution = nn.Conv1d(channels, 2 * channels, kernel_size=3, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """float[n, time, channels] to the same shape; position t sees none after t."""
        padded = functional.pad(x.transpose(1, 2), (self.past, 0))
        return x + functional.glu(self.convolution(padded), dim=1).transpose(1, 2)


def _network(body: Sequence[nn.Module], head: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(body=nn.Sequential(*body), head=head))
