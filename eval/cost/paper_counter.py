"""The counter behind Figure 5 of VidTwin's paper (arXiv 2412.17726, appendix C.2), and what it leaves out.

The paper's pseudo-DiT is "6 layers, 8 attention heads, hidden 512, FFN 2048, total of 12,610,560 parameters".
That is what the package thop reports for `nn.TransformerEncoder` of these sizes, to the last digit, and
neither its parameters nor its operations: thop counts the modules it knows, linear layers and normalisations,
and does not look into `nn.MultiheadAttention`. Its projections, 4 D^2 a token, and the products of queries,
keys and values, which grow with the square of the number of tokens, are in neither figure.
"""

from __future__ import annotations

from torch import nn

from eval.cost.flags import FIGURE_5_DIT

LAYERS, WIDTH, HEADS = (FIGURE_5_DIT[name] for name in ("num_layers", "hidden_size", "num_heads"))
MLP_WIDTH = 2048


def figure_5_network() -> nn.Module:
    """The network itself: tokens (B, N, 512) -> (B, N, 512)."""
    layers = (
        nn.TransformerEncoderLayer(WIDTH, HEADS, MLP_WIDTH, 0.0, batch_first=True) for _ in range(LAYERS)
    )
    return nn.Sequential(*layers)  # and not nn.TransformerEncoder: it copies, which fake tensors cannot do


def counted_parameters(layers: int = LAYERS, width: int = WIDTH, mlp_width: int = MLP_WIDTH) -> int:
    """Of an encoder without its attention: two linear layers and two normalisations in each layer."""
    return layers * (2 * width * mlp_width + mlp_width + width + 2 * 2 * width)


def counted_macs(
    num_tokens: int, layers: int = LAYERS, width: int = WIDTH, mlp_width: int = MLP_WIDTH
) -> int:
    """Multiply-adds of a forward pass by the same rule, linear in the number of tokens: the two linear
    layers, and four operations for each number that is normalised."""
    return num_tokens * layers * (2 * width * mlp_width + 2 * 4 * width)
