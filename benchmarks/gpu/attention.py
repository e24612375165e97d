"""The kernels that torch has for attention, compared on the autoencoder's many short sequences."""

from __future__ import annotations

from contextlib import nullcontext
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoencoder.model.layout import token_grid
from autoencoder.model.vidtwin import AutoencoderVidTwin
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import dtype_on, timed
from eval.cost.timing import spread

KERNELS = {
    "torch's choice": None,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def temporal_attention(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Forward and backward pass, in bf16 on a GPU, of the attention along time in one of the autoencoder's
    blocks, without its projections: by kernel, or why it is not to be had."""
    with FakeTensorMode():
        config = AutoencoderVidTwin(**sizes.autoencoder).config
    sequences = sizes.clips * prod(token_grid(config))
    dtype = dtype_on(device)
    shape = (config.num_frames, sequences, config.hidden_size)  # as the trunk has its tokens, time first
    given = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    gradient = torch.randn(shape, device=device, dtype=dtype)

    def step() -> None:
        q, k, v = (rearrange(x, "f n (heads d) -> n heads f d", heads=config.num_heads) for x in given)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=config.causal)
        torch.autograd.grad(rearrange(out, "n heads f d -> f n (heads d)"), given, gradient)

    seconds: dict[str, Any] = {}
    for name, kernel in KERNELS.items():
        with sdpa_kernel(kernel) if kernel else nullcontext():
            try:
                step()
            except RuntimeError as error:
                seconds[name] = {"error": str(error).splitlines()[0]}
                continue
            seconds[name] = spread(timed(step, sizes.repeats, device)).to_json()
    shape_of_each = {"num_sequences": sequences, "length": config.num_frames, "num_heads": config.num_heads}
    return shape_of_each | {"is_causal": config.causal, "seconds": seconds}
