"""The zoo's networks: the kinds of layers that people train and the built-in tasks lack. Needs torch.

Each is a ``body`` and a last linear layer ``head``, as in ``simulations.tasks.networks``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


def headed(body: Sequence[nn.Module], head: nn.Module) -> nn.Module:
    """A ``body`` and its ``head``, one after the other. Convolutions start as He et al. (2015) have it, which without
    a norm is what lets them learn in a few hundred steps."""
    network = nn.Sequential(OrderedDict(body=nn.Sequential(*body), head=head))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network


def group_norm(channels: int) -> nn.Module:
    """GroupNorm in groups of four channels."""
    return nn.GroupNorm(channels // 4, channels)


def normed_mlp(*sizes: int) -> nn.Module:
    """BatchNorm on the inputs and after every hidden layer: float[n, sizes[0]] to float[n, sizes[-1]]."""
    *widths, last = sizes
    body: list[nn.Module] = [nn.BatchNorm1d(widths[0])]
    for width, following in pairwise(widths):
        body += [nn.Linear(width, following), nn.BatchNorm1d(following), nn.ReLU()]
    return headed(body, nn.Linear(widths[-1], last))


def cnn(
    channels: Sequence[int], classes: int, norm: Norm | None = None, depthwise: bool = False, hidden: int = 0
) -> nn.Module:
    """Strided 3 x 3 convolutions: float[n, channels[0], h, w] to logits[n, classes].

    Args:
        channels: of the input and of each convolution.
        classes: of the output.
        norm: a layer for so many channels after each convolution; None: biases and no norm.
        depthwise: each convolution but the first is one per channel and one of 1 x 1 (Howard et al. 2017, MobileNets).
        hidden: width of a linear layer over 4 x 4 places; 0: the mean over all places instead.
    """
    body: list[nn.Module] = []
    for number, (width, following) in enumerate(pairwise(channels)):
        if depthwise and number:
            body += _convolved(width, width, norm, groups=width)
            body += [nn.Conv2d(width, following, 1, bias=norm is None), *_normed(following, norm)]
        else:
            body += _convolved(width, following, norm)
    if not hidden:
        return headed([*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()], nn.Linear(channels[-1], classes))
    body += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels[-1], hidden), nn.ReLU()]
    return headed(body, nn.Linear(hidden, classes))


def _convolved(width: int, following: int, norm: Norm | None, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(width, following, 3, stride=2, padding=1, groups=groups, bias=norm is None)
    return [convolution, *_normed(following, norm)]


def _normed(channels: int, norm: Norm | None) -> list[nn.Module]:
    return [norm(channels), nn.ReLU()] if norm else [nn.ReLU()]


class Residual(nn.Module):
    """Two convolutions, each with its norm, beside a shortcut (He et al. 2016); halves height and width."""

    def __init__(self, width: int, following: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, following, 3, stride=2, padding=1, bias=False)
        self.first_norm = norm(following)
        self.second = nn.Conv2d(following, following, 3, padding=1, bias=False)
        self.second_norm = norm(following)
        self.shortcut = nn.Conv2d(width, following, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """float[n, width, h, w] to float[n, following, h / 2, w / 2]."""
        inner = torch.relu(self.first_norm(self.first(x)))
        outer: Tensor = self.second_norm(self.second(inner))
        return torch.relu(outer + self.shortcut(x))


def resnet(channels: Sequence[int], classes: int, norm: Norm) -> nn.Module:
    """A strided convolution, then a residual block per further width, then the mean over places."""
    stem, *blocks = pairwise(channels)
    body = [*_convolved(*stem, norm), *(Residual(width, following, norm) for width, following in blocks)]
    return headed([*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()], nn.Linear(channels[-1], classes))


class Positions(nn.Module):
    """Embeddings of symbols and of their places, added."""

    def __init__(self, symbols: int, time: int, width: int) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, width)
        self.places = nn.Parameter(0.02 * torch.randn(time, width))

    def forward(self, x: Tensor) -> Tensor:
        """int[n, time] to float[n, time, width]."""
        symbols: Tensor = self.symbols(x)
        return symbols + self.places[: x.shape[1]]


class Attention(nn.Module):
    """A pre-norm block of causal self-attention and a perceptron, both with shortcuts (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.joint = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """float[n, time, width] to the same shape; position t sees none after t."""
        n, time, width = x.shape
        parts = self.joint(self.before(x)).reshape(n, time, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, time, width))
        added: Tensor = self.perceptron(x)
        return x + added


def transformer(symbols: int, time: int, width: int, depth: int, heads: int = 2) -> nn.Module:
    """A causal transformer: int[n, time] to logits[n, time, symbols]."""
    blocks = [Attention(width, heads) for _ in range(depth)]
    return headed([Positions(symbols, time, width), *blocks, nn.LayerNorm(width)], nn.Linear(width, symbols))


class Recurrent(nn.Module):
    """An embedding and a GRU or an LSTM over it; the last state alone, or the one of every position."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], symbols: int, width: int, hidden: int, every: bool) -> None:
        super().__init__()
        self.every = every
        self.embedding = nn.Embedding(symbols, width)
        self.cell = kind(width, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """int[n, time] to float[n, hidden], or to float[n, time, hidden] with ``every``."""
        states: Tensor = self.cell(self.embedding(x))[0]
        return states if self.every else states[:, -1]


def recurrent(
    kind: type[nn.GRU] | type[nn.LSTM], symbols: int, width: int, hidden: int, classes: int, every: bool = False
) -> nn.Module:
    """A recurrent network: int[n, time] to logits[n, classes], or to logits[n, time, classes] with ``every``."""
    return headed([Recurrent(kind, symbols, width, hidden, every)], nn.Linear(hidden, classes))


def bag(symbols: int, width: int, classes: int) -> nn.Module:
    """The mean of the symbols' embeddings, and a linear layer: int[n, time] to logits[n, classes]."""
    return headed([nn.EmbeddingBag(symbols, width)], nn.Linear(width, classes))


class Pairs(nn.Module):
    """Koren, Bell and Volinsky's (2009) factors of pairs: the product of two embeddings, and a bias for each side."""

    def __init__(self, rows: int, columns: int, width: int) -> None:
        super().__init__()
        self.row = nn.Embedding(rows, width)
        self.column = nn.Embedding(columns, width)
        self.row_bias = nn.Embedding(rows, 1)
        self.column_bias = nn.Embedding(columns, 1)
        for embedding in (self.row, self.column, self.row_bias, self.column_bias):
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """int[n, 2], a row and a column each, to float[n, 1]."""
        row, column = x.unbind(1)
        product: Tensor = (self.row(row) * self.column(column)).sum(1, keepdim=True)
        biases: Tensor = self.row_bias(row) + self.column_bias(column)
        return product + biases
