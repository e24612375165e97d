"""The flags that spend less time and memory on a step: TF32, and the moments of AdamW in 8 bits."""

import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

import train_dit
import train_vae
from vidtwin_gen.training.accelerator import allow_tf32
from vidtwin_gen.training.config import TrainingConfig
from vidtwin_gen.training.optimizer import make_optimizer
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
            make_optimizer([], config, accelerator, learning_rate=1.0)


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
