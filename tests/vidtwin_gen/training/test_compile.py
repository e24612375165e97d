"""What `--compile` makes of a run: one graph to train with, one to validate with, and one for the batches of
validation and of pictures that have another size."""

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import ModelMixin
from torch._dynamo.testing import CompileCounter

import train_dit
import train_vae

CHANGES = {"compile": True, "max_train_steps": 4, "validation_steps": 2, "checkpointing_steps": 4}


@pytest.fixture
def compiled(monkeypatch):
    """Counts graphs; a break in one is an error."""
    torch.compiler.reset()
    AcceleratorState._reset_state(reset_partial_state=True)
    counter = CompileCounter()
    compile_blocks = ModelMixin.compile_repeated_blocks
    monkeypatch.setattr(
        ModelMixin,
        "compile_repeated_blocks",
        lambda model: compile_blocks(model, fullgraph=True, backend=counter),
    )
    yield counter
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.compiler.reset()


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_of_the_generator(tiny_dit_run, tmp_path, compiled, mixed_precision):
    changes = {"num_sample_classes": 1, "mixed_precision": mixed_precision}
    train_dit.main(tiny_dit_run.argv(tmp_path / "run", **CHANGES, **changes))
    assert compiled.frame_count <= 3


@pytest.mark.parametrize(("num_videos", "graphs"), [(4, 2), pytest.param(3, 3, marks=pytest.mark.slow)])
def test_of_the_autoencoder(tiny_vae_run, tmp_path, compiled, num_videos, graphs):
    """Of the trunk's blocks, in the encoder and the decoder alike."""
    changes = {"num_validation_videos": num_videos, "mixed_precision": "bf16", "train_batch_size": 2}
    train_vae.main(tiny_vae_run.argv(tmp_path / "run", **CHANGES, **changes))
    assert compiled.frame_count == graphs
