"""The counter behind Figure 5 of VidTwin's paper (arXiv 2412.17726, appendix C.2), and what it leaves out.

The paper's pseudo-DiT is "6 layers, 8 attention heads, hidden 512, FFN 2048, total of 12,610,560 parameters".
That is what the package thop reports for `nn.TransformerEncoder` of these sizes, to the last digit, and
neither its parameters nor its operations: thop counts the modules it knows, linear layers and normalisations,
and does not look into `nn.MultiheadAttention`. Its projections, 4 D^2 a token, and the products of queries,
keys and values, which grow with the square of the number of tokens, are in neither figure.
"""

from __future__ import annotations

from eval.cost.flags import FIGURE_5_DIT

LAYERS, WIDTH = FIGURE_5_DIT["num_layers"], FIGURE_5_DIT["hidden_size"]
MLP_WIDTH = 2048


def counted_parameters() -> int:
    """Of the network without its attention: two linear layers and two normalisations in each layer."""
    return LAYERS * (2 * WIDTH * MLP_WIDTH + MLP_WIDTH + WIDTH + 2 * 2 * WIDTH)


def counted_macs(num_tokens: int) -> int:
    """Multiply-adds of a forward pass by the same rule, linear in the number of tokens: the two linear
    layers, and four operations for each number that is normalised."""
    return num_tokens * LAYERS * (2 * WIDTH * MLP_WIDTH + 2 * 4 * WIDTH)
