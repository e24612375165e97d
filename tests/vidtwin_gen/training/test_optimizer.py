"""Optimizers: Muon beside AdamW; and what spends less on a step: TF32, and the moments of AdamW in 8 bits."""

import math
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

import train_dit
import train_vae
from pipelines.pipeline_vidtwin import VidTwinPipeline
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.training.accelerator import allow_tf32
from vidtwin_gen.training.config import TrainingConfig
from vidtwin_gen.training.optimizer import Float32OnCPU, block_matrices, make_optimizers, optimizer_bytes
from vidtwin_gen.weights import weights_sha256


@pytest.fixture
def precision():
    yield torch.get_float32_matmul_precision
    torch.set_float32_matmul_precision("highest")


def test_tf32_is_for_gpus(tiny_dit_run, tmp_path, precision):
    argv = tiny_dit_run.argv(tmp_path / "run", max_train_steps=1, validation_steps=1, allow_tf32=True)
    train_dit.main(argv)
    assert precision() == "highest"
    allow_tf32(torch.device("cuda", 0))
    assert precision() == "high"


def test_the_8_bit_adam_needs_its_package(tiny_vae_run, tiny_dit_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    for script, run in ((train_vae, tiny_vae_run), (train_dit, tiny_dit_run)):
        with pytest.raises(ValueError, match="--use_8bit_adam needs bitsandbytes: pip install"):
            script.main(run.argv(tmp_path / "run", use_8bit_adam=True))
    assert not list(tmp_path.iterdir())


def test_the_8_bit_adam_is_refused_where_it_can_not_run():
    config = TrainingConfig(output_dir="run", use_8bit_adam=True)
    for kind, device, message in (
        (DistributedType.FSDP, "cuda", "--use_8bit_adam does not go with FSDP"),
        (DistributedType.NO, "mps", "--use_8bit_adam runs on cuda, xpu, cpu, not on mps"),
    ):
        accelerator = SimpleNamespace(distributed_type=kind, device=torch.device(device))
        with pytest.raises(ValueError, match=message):
            make_optimizers([], config, accelerator, learning_rate=1.0)


def test_the_8_bit_adam_trains_and_resumes(tiny_dit_run, tmp_path):
    pytest.importorskip("bitsandbytes")
    # a block's matrices have to have 4096 numbers
    flags = {"use_8bit_adam": True, "hidden_size": 64, "max_train_steps": 4, "validation_steps": 4}
    argv = tiny_dit_run.argv(tmp_path / "run", **flags)
    train_dit.main(argv)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    weights = weights_sha256(tmp_path / "run" / "pipeline" / "transformer")
    state = torch.load(tmp_path / "run" / "checkpoint-4" / "optimizer.bin", weights_only=False)["state"]
    assert "dtype=torch.uint8" in str(state)

    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    shutil.rmtree(tmp_path / "run" / "pipeline")
    train_dit.main(argv)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines
    assert weights_sha256(tmp_path / "run" / "pipeline" / "transformer") == weights


def test_muon_has_the_blocks_matrices_and_adamw_the_rest():
    layout = LatentLayout((LatentGrid("video", ("time", "width"), (4, 4), 4),))
    model = LatentTransformer(layout.to_config(), 3, hidden_size=32, num_layers=2, num_heads=2)
    config = TrainingConfig(output_dir="run", optimizer="muon")
    adamw, muon = make_optimizers([model, torch.nn.Linear(99, 99)], config, Accelerator(), learning_rate=1e-3)
    shapes = {tuple(matrix.shape) for matrix in muon.param_groups[0]["params"]}
    assert shapes == {(32, 32), (128, 32), (32, 128), (192, 32)}
    assert len(muon.param_groups[0]["params"]) == 2 * 7 == len(block_matrices(model))
    both = adamw.param_groups[0]["params"] + muon.param_groups[0]["params"]
    assert len(set(map(id, both))) == len(both) == len(list(model.parameters())) + 2
    assert (adamw.param_groups[0]["lr"], muon.param_groups[0]["lr"]) == (1e-3, 0.02)


@pytest.mark.parametrize("flags", [{}, {"optimizer": "muon"}, {"use_8bit_adam": True}], ids=str)
def test_the_optimizers_keep_as_much_as_is_predicted(flags):
    if "use_8bit_adam" in flags:
        pytest.importorskip("bitsandbytes")
    layout = LatentLayout((LatentGrid("video", ("time", "width"), (4, 4), 4),))
    model = LatentTransformer(layout.to_config(), 3, hidden_size=64, num_layers=1, num_heads=2)
    config = TrainingConfig(output_dir="run", **flags)
    optimizers = make_optimizers([model], config, Accelerator(), learning_rate=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    kept = 0
    for optimizer in optimizers:
        optimizer.step()
        for state in optimizer.state.values():
            moments = (value for name, value in state.items() if name not in ("step", "qmap1", "qmap2"))
            kept += sum(value.nbytes for value in moments if torch.is_tensor(value))
    assert optimizer_bytes(model, config) == pytest.approx(kept, rel=1e-3)


def test_the_optimizers_have_the_settings_of_the_flags():
    settings = {"adam_beta1": 0.5, "adam_beta2": 0.75, "adam_weight_decay": 0.125, "adam_epsilon": 0.25}
    config = TrainingConfig(output_dir="run", optimizer="muon", muon_learning_rate=0.5, **settings)
    layout = LatentLayout((LatentGrid("video", ("time", "width"), (4, 4), 4),))
    model = LatentTransformer(layout.to_config(), 3, hidden_size=32, num_layers=1, num_heads=2)
    adamw, muon = make_optimizers([model], config, Accelerator(), learning_rate=1e-3)
    found = {name: adamw.param_groups[0][name] for name in ("lr", "betas", "weight_decay", "eps")}
    assert found == {"lr": 1e-3, "betas": (0.5, 0.75), "weight_decay": 0.125, "eps": 0.25}
    assert (muon.param_groups[0]["lr"], muon.param_groups[0]["weight_decay"]) == (0.5, 0.125)


def test_muon_orthogonalises_in_float32_on_a_cpu():
    weight = torch.nn.Parameter(torch.zeros(32, 16))
    weight.grad = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    with Float32OnCPU():
        torch.optim.Muon([weight], lr=1.0, weight_decay=0.0).step()
    expected = weight.grad.double().T
    expected = expected / expected.norm()
    for _ in range(5):
        gram = expected @ expected.T
        expected = 3.4445 * expected + (-4.775 * gram + 2.0315 * gram @ gram) @ expected
    assert torch.allclose(-weight.detach().T.double() / 2**0.5, expected, atol=1e-4)  # bfloat16: 1e-2


def test_the_recipe_trains_and_resumes(tiny_dit_run, tmp_path):
    """x_0, internal guidance, contrast, a shift by the layout, and Muon; to the last bit as uninterrupted."""
    flags = {"prediction": "x0", "internal_guidance": True, "num_layers": 2, "contrastive_weight": 0.05}
    flags |= {
        "shift": "auto",
        "block_type": "lightning",
        "optimizer": "muon",
        "max_train_steps": 4,
        "checkpointing_steps": 2,
    }
    argv = tiny_dit_run.argv(tmp_path / "run", **flags, validation_steps=4)
    train_dit.main(argv)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    folder = tmp_path / "run" / "pipeline"
    weights = weights_sha256(folder / "transformer")
    pipe = VidTwinPipeline.from_pretrained(folder)
    elements = pipe.transformer.layout.num_elements
    assert pipe.scheduler.config.shift == pytest.approx(math.sqrt(elements / 4096))
    assert pipe.transformer.config.predicts_x0 and pipe.transformer.config.internal_layer == 1
    assert "Muon for the matrices of the blocks, else AdamW" in (folder / "README.md").read_text()
    frames = pipe(0, num_inference_steps=2, internal_guidance_scale=1.2, output_type="pt").frames
    assert frames.isfinite().all()

    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    shutil.rmtree(folder)
    train_dit.main(argv)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines
    assert weights_sha256(folder / "transformer") == weights


def test_muon_is_refused_where_it_can_not_run():
    config = TrainingConfig(output_dir="run", optimizer="muon")
    sharded = SimpleNamespace(distributed_type=DistributedType.FSDP, device=torch.device("cuda"))
    with pytest.raises(ValueError, match="muon needs whole matrices, which FSDP shards"):
        make_optimizers([], config, sharded, learning_rate=1.0)
