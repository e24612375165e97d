"""What `train_dit.py` makes of a batch, by hand: the network's input, its target, the terms of its loss."""

import pytest
import torch
from accelerate import Accelerator

import train_dit
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.autoencoders import fill_zeros
from vidtwin_gen.data.latent_dataset import LatentDataset
from vidtwin_gen.diffusion import alphas_bar, contrastive_loss, grid_losses, total_loss
from vidtwin_gen.draws import BatchDraw, SampleDraw, seeded_generator
from vidtwin_gen.latents import LatentGrid, LatentLayout

LAYOUT = LatentLayout(
    (LatentGrid("structure", ("query",), (6,), 2), LatentGrid("dynamics", ("time",), (4,), 1))
)
B, L = 8, LAYOUT.num_elements
METADATA = {
    "layout": LAYOUT.to_config(),
    "class_names": ["A", "B", "C"],
    "latents_mean": [0.5, -1.0, 2.0],
    "latents_std": [2.0, 0.5, 4.0],
}
SIZES = {"hidden_size": 16, "num_layers": 2, "num_heads": 2}


def step(**flags):
    """Of one pass: what the network was given, what it gave, the losses, and the draws by hand."""
    config = train_dit.DiTConfig(output_dir="run", vae="v", latents="l", **SIZES | flags)
    torch.manual_seed(0)
    network = train_dit.make_transformer(config, METADATA)
    fill_zeros(network)
    seen = {}

    def look(_, given, __, output):
        seen.update(zip(("noisy", "timestep", "labels"), given, strict=True), output=output)

    network.register_forward_hook(look, with_kwargs=True)
    numbers = torch.Generator().manual_seed(1)
    batch = {name: torch.randn(B, L, generator=numbers) for name in ("mean", "logvar")}
    batch["label"] = torch.arange(B) % 3
    draw = BatchDraw(torch.Generator(), torch.Generator().manual_seed(2), B, slice(None))
    whitening = train_dit.Whitening.of(METADATA, torch.device("cpu"))
    losses = train_dit.diffusion_losses(network, batch, whitening, config, draw, network.null_class)
    drawn = torch.Generator().manual_seed(2)
    raw = batch["mean"]
    if config.sample_posterior:
        raw = raw + (batch["logvar"] / 2).exp() * torch.randn(B, L, generator=drawn)
    z = LAYOUT.whiten(raw, METADATA["latents_mean"], METADATA["latents_std"])
    return seen, losses, z, drawn, batch


FLOW = {"sample_posterior": True, "class_dropout": 0.5, "logit_mean": 0.7, "logit_std": 0.5, "shift": "3.0"}


def flow_of(z, drawn):
    noise = torch.randn(B, L, generator=drawn)
    level = torch.sigmoid(0.7 + 0.5 * torch.randn(B, generator=drawn))  # logit-normal, then shifted by 3
    return noise, (3 * level / (1 + 2 * level))[:, None]


@pytest.mark.parametrize("prediction", ["velocity", "x0"])
def test_a_flow_learns_the_velocity_at_logit_normal_levels(prediction):
    seen, losses, z, drawn, batch = step(**FLOW, prediction=prediction)
    noise, sigma = flow_of(z, drawn)
    noisy = (1 - sigma) * z + sigma * noise
    torch.testing.assert_close(seen["noisy"], noisy)
    torch.testing.assert_close(seen["timestep"], 1000 * sigma[:, 0])
    target = noise - z if prediction == "velocity" else (noisy - z) / sigma.clamp(min=0.05)
    torch.testing.assert_close(losses["loss"], (seen["output"].sample - target).square().mean())
    dropped = torch.rand(B, generator=drawn) < 0.5
    assert 0 < dropped.sum() < B
    assert torch.equal(seen["labels"], torch.where(dropped, 3, batch["label"]))


def test_the_weight_of_x0_is_bounded_near_the_data():
    """At levels below 0.05 its error is not the velocity's."""
    seen, losses, z, drawn, _ = step(prediction="x0", logit_mean=-5.0)
    noise = torch.randn(B, L, generator=drawn)
    sigma = torch.sigmoid(-5.0 + torch.randn(B, generator=drawn))[:, None]
    target = sigma * (noise - z) / sigma.clamp(min=0.05)
    assert (sigma < 0.05).any()
    torch.testing.assert_close(losses["loss"], (seen["output"].sample - target).square().mean())


def test_the_papers_objective_is_x0_of_a_ddpm():
    seen, losses, z, drawn, _ = step(objective="paper")
    noise, timestep = torch.randn(B, L, generator=drawn), torch.randint(1000, (B,), generator=drawn)
    share = alphas_bar(torch.device("cpu"))[timestep][:, None]
    assert torch.equal(seen["timestep"], timestep)
    torch.testing.assert_close(seen["noisy"], share.sqrt() * z + (1 - share).sqrt() * noise)
    torch.testing.assert_close(losses["loss"], (seen["output"].sample - z).square().mean())


@pytest.mark.parametrize("weighting", ["element", "grid"])
def test_the_terms_are_added_with_their_weights(weighting):
    flags = {"internal_guidance": True, "contrastive_weight": 0.25, "loss_weighting": weighting}
    flags |= {"class_dropout": 0.1}
    seen, losses, z, drawn, _ = step(**FLOW | flags)
    noise, _ = flow_of(z, drawn)

    def loss(prediction):
        return total_loss(grid_losses(prediction, noise - z, LAYOUT), LAYOUT, weighting)

    output = seen["output"]
    other = contrastive_loss(output.sample, noise - z, seen["labels"], 3, LAYOUT, weighting)
    assert other > 0
    torch.testing.assert_close(
        losses["loss"], loss(output.sample) + loss(output.internal_sample) - 0.25 * other
    )


def test_validation_has_no_contrast():
    with torch.no_grad():
        _, plain, *_ = step()
        _, contrasted, *_ = step(contrastive_weight=0.25)
    assert torch.equal(plain["loss"], contrasted["loss"])


@pytest.mark.parametrize(("flag", "layer"), [(2, 2), (0, 1)], ids=["given", "a third of all"])
def test_the_features_are_held_against_the_tokens_of_one_layer(flag, layer):
    config = train_dit.DiTConfig(output_dir="run", vae="v", latents="l", repa_layer=flag, **SIZES)
    network = train_dit.make_transformer(config, METADATA)
    fill_zeros(network)
    tokens = []
    for block in network.transformer_blocks:
        block.register_forward_hook(lambda _, __, output: tokens.append(output))
    batch = {"mean": torch.ones(B, L), "logvar": torch.zeros(B, L), "label": torch.arange(B) % 3}
    batch["features"] = torch.full((), 5.0)
    seen = []

    def head(hidden, features):
        seen.append(hidden)
        return features

    draw = BatchDraw(torch.Generator(), torch.Generator().manual_seed(2), B, slice(None))
    whitening = train_dit.Whitening.of(METADATA, torch.device("cpu"))
    null_class = network.null_class
    losses = train_dit.diffusion_losses(network, batch, whitening, config, draw, null_class, head)
    assert losses["loss_repa"] == 5 and seen[0] is tokens[layer - 1]


def test_every_held_out_clip_has_noise_of_its_own_at_every_validation(tiny_dit_run):
    config = train_dit.DiTConfig(**{**tiny_dit_run.flags, "output_dir": "unused"})
    _, rows, metadata = train_dit.load_inputs(config)
    device = torch.device("cpu")
    whitening = train_dit.Whitening.of(metadata, device)
    network = train_dit.make_transformer(config, metadata)
    fill_zeros(network)
    dataset = LatentDataset(rows["test"], shuffle=False)
    losses = []
    for number in range(len(dataset)):
        batch = dataset.__getitems__([number])
        draw = SampleDraw([seeded_generator(config.seed, "validation", number)], device)
        with torch.no_grad():
            found = train_dit.diffusion_losses(network, batch, whitening, config, draw, network.null_class)
        losses.append(found["loss"].item())
    for _ in range(2):
        values = train_dit.validate(network, rows["test"], whitening, config, Accelerator(cpu=True))
        assert values["val_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_pictures_of_a_run_are_sampled_as_its_flags_say(tiny_dit_run, tmp_path):
    flags = {**tiny_dit_run.flags, "output_dir": str(tmp_path), "guidance_scale": 3.0, "seed": 5}
    given = []

    class Watched(VidTwinPipeline):
        def __call__(self, *arguments, **options):
            output = super().__call__(*arguments, **options)
            given.append(output[0])
            return output

    pipe = Watched.from_pretrained(tiny_dit_run.output_dir / "pipeline")
    train_dit.sample_classes(pipe, train_dit.DiTConfig(**flags), 1, Accelerator(cpu=True))
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    options = {"guidance_scale": 3.0, "num_inference_steps": 2, "output_type": "pt"}
    assert torch.equal(given[0], pipe([0, 1], generator=generators, **options).frames)
    assert list((tmp_path / "samples").glob("*.gif"))
