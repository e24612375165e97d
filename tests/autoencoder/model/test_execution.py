"""Slices, checkpointing, bfloat16, kernels and the compiler change how it is computed, not what."""

import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend
from torch._dynamo.testing import CompileCounter

from autoencoder.losses.terms import vidtwin_loss
from tests.builders.autoencoders import ABLATIONS, build_autoencoder, random_clips, random_latents


@torch.no_grad()
def test_slicing_changes_nothing_but_memory():
    model = build_autoencoder()
    x = random_clips(model, batch_size=3)
    whole = model(x)
    model.enable_slicing()
    sliced = model(x)
    torch.testing.assert_close(sliced.latent_dist.parameters, whole.latent_dist.parameters)
    torch.testing.assert_close(sliced.sample, whole.sample)
    latents = random_latents(model, 3)
    structure, dynamics = model.decode_structure(latents).sample, model.decode_dynamics(latents).sample
    model.disable_slicing()
    torch.testing.assert_close(structure, model.decode_structure(latents).sample)
    torch.testing.assert_close(dynamics, model.decode_dynamics(latents).sample)


def gradients(model):
    model.train().zero_grad()
    x = random_clips(model)
    output = model(x, sample_posterior=True, generator=torch.Generator().manual_seed(0))
    loss = vidtwin_loss(output.sample, x, output.latent_dist, kl_weight=0.1)["loss"]
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("changes", [{}, *ABLATIONS.values()], ids=["VidTwin", *ABLATIONS])
def test_every_parameter_learns(changes):
    # softmax is blind to what all keys share, so their biases have no gradient but rounding
    for name, gradient in gradients(build_autoencoder(**changes))[1].items():
        assert gradient is not None, name
        assert gradient.any() or name.endswith(("to_k.bias", "key.bias")), name


def test_gradient_checkpointing_changes_nothing_but_memory():
    model = build_autoencoder()
    loss, plain = gradients(model)
    model.enable_gradient_checkpointing()
    calls = []
    checkpointed = model.encoder._gradient_checkpointing_func

    def counted(*args):
        calls.append(args)
        return checkpointed(*args)

    model.encoder._gradient_checkpointing_func = counted
    again, recomputed = gradients(model)
    assert len(calls) == model.config.num_layers
    assert torch.equal(again, loss)
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


def test_bfloat16_runs_and_stays():
    model = build_autoencoder()
    x = random_clips(model)
    expected = model(x).sample.detach()
    model.to(torch.bfloat16)
    output = model(x.bfloat16())
    assert output.sample.dtype == output.latent_dist.mean.dtype == torch.bfloat16
    error = (output.sample.float() - expected).square().mean().sqrt() / expected.std()
    assert error < 0.05


@torch.no_grad()
def test_the_attention_kernel_is_a_choice():
    model = build_autoencoder()
    x = random_clips(model)
    expected = model(x).sample
    with attention_backend("native"):  # diffusers also makes the choice the default: undone at the end
        model.set_attention_backend("_native_math")
        assert model.encoder.blocks[0].attn.processor._attention_backend is not None
        torch.testing.assert_close(model(x).sample, expected, atol=1e-5, rtol=1e-5)


def test_a_block_is_one_graph_to_the_compiler():
    """With gradients, as `--compile` trains; "eager" traces as every backend does and generates no code."""
    model = build_autoencoder()
    loss, plain = gradients(model)
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    again, compiled = gradients(model)
    torch.testing.assert_close(again, loss)
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, msg=name, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_all_blocks_are_the_same_graph():
    """Though the first one alone is told the frames' times."""
    model = build_autoencoder(num_layers=3).eval()
    x = random_clips(model)
    expected = model(x).sample
    graphs = CompileCounter()
    model.compile_repeated_blocks(fullgraph=True, backend=graphs)
    torch.testing.assert_close(model(x).sample, expected, atol=1e-5, rtol=1e-4)
    assert graphs.frame_count == 1


@torch.no_grad()
@pytest.mark.parametrize("return_dict", [True, False])
def test_it_is_exported_whole(return_dict):
    model = build_autoencoder().eval()
    x = random_clips(model)
    exported = torch.export.export(model, (x,), {"return_dict": return_dict}, strict=False)
    sample, posterior = model(x, return_dict=False)
    output = exported.module()(x, return_dict=return_dict)
    again = (output.sample, output.latent_dist) if return_dict else output
    torch.testing.assert_close(again[0], sample)
    torch.testing.assert_close(again[1].mean, posterior.mean)


@torch.no_grad()
def test_fused_projections_are_the_same_function():
    model = build_autoencoder()
    x = random_clips(model)
    expected = model(x).sample
    model.fuse_qkv_projections()
    assert model.encoder.blocks[0].attn.fused_projections
    torch.testing.assert_close(model(x).sample, expected, atol=1e-5, rtol=1e-5)
