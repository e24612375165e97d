"""What a generator must be able to do before anything else: give back the few clips it was trained on."""

from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from autoencoder.model.vidtwin import AutoencoderVidTwin
from pipelines.pipeline_vidtwin import VidTwinPipeline
from vidtwin_gen.data.video import read_clip
from vidtwin_gen.diffusion import grid_losses, sample_sigmas, total_loss
from vidtwin_gen.models.parametrization import interpolate, timestep_of, velocity
from vidtwin_gen.models.transformer import LatentTransformer

CLIPS = Path(__file__).parents[4] / "shared" / "data" / "ucf101-10"
NUM_STEPS = 300


@pytest.fixture
def eight_clips():
    """(8, C, F, H, W), the first video of each of eight classes of UCF-101."""
    classes = sorted(path for path in CLIPS.glob("*") if path.is_dir())[:8]
    if len(classes) < 8:
        pytest.skip("no UCF-101 files in ../shared/data/ucf101-10")
    videos = [min(folder.glob("*_g01_c01.*"), default=min(folder.iterdir())) for folder in classes]
    return torch.stack([read_clip(path, 4, size=16, stride=2, start="center") for path in videos])


def test_eight_real_clips_come_back_by_class(eight_clips, tiny_vae_run):
    vae = AutoencoderVidTwin.from_pretrained(tiny_vae_run.output_dir / "autoencoder").eval()
    layout = vae.layout
    with torch.no_grad():
        raw = vae.encode(eight_clips).latent_dist.mode()
    parts = layout.split(raw).values()
    mean = torch.cat([part.flatten(0, -2).mean(0) for part in parts]).tolist()
    std = torch.cat([part.flatten(0, -2).std(0) for part in parts]).tolist()
    vae.register_to_config(latents_mean=mean, latents_std=std)
    known = layout.whiten(raw, mean, std)  # (8, L)

    torch.manual_seed(0)
    model = LatentTransformer(layout.to_config(), 8, hidden_size=64, num_layers=2, num_heads=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS)
    draw, labels = torch.Generator().manual_seed(0), torch.arange(8).repeat(3)
    for _ in range(NUM_STEPS):
        x0 = known[labels]
        noise, sigma = torch.randn(x0.shape, generator=draw), sample_sigmas(len(x0), draw)
        prediction = model(interpolate(x0, noise, sigma), timestep_of(sigma), labels).sample
        loss = total_loss(grid_losses(prediction, velocity(x0, noise), layout), layout)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    pipe = VidTwinPipeline(vae, model.eval(), FlowMatchEulerDiscreteScheduler())
    pipe.set_progress_bar_config(disable=True)
    generated = pipe(list(range(8)), guidance_scale=1.0, generator=draw, output_type="latent").frames
    distances = torch.cdist(generated, known)
    assert distances.argmin(dim=1).tolist() == list(range(8))
    error = distances.diagonal() / known.norm(dim=1)
    assert error.max() <= 0.1, error
