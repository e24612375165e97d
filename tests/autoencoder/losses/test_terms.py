"""The autoencoder's loss: its terms in the paper's proportions, and the game with the discriminator."""

import math

import pytest
import torch

from autoencoder.losses.discriminator import PatchDiscriminator
from autoencoder.losses.perceptual import LPIPS
from autoencoder.losses.terms import (
    LogVariance,
    adaptive_weight,
    adversarial_losses,
    discriminator_losses,
    frames_of,
    generator_loss,
    hide_later_frames,
    hinge_loss,
    noise_for_decoding,
    vidtwin_loss,
)
from autoencoder.model.posterior import FlatGaussian
from vidtwin_gen.draws import BatchDraw


@pytest.fixture
def reconstructed():
    """A batch of clips, what came back, and the posterior of a latent of 5 numbers."""
    torch.manual_seed(0)
    clips = torch.rand(2, 3, 4, 32, 32) * 2 - 1
    return clips + 0.1 * torch.randn_like(clips), clips, FlatGaussian(torch.randn(2, 10))


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return PatchDiscriminator(base_channels=4)


def test_the_proportions_are_the_papers(reconstructed):
    """Times C H W it is the sum over a frame's numbers, the mean over frames, plus kl_weight times the KL."""
    reconstruction, clips, posterior = reconstructed
    losses = vidtwin_loss(reconstruction, clips, posterior, kl_weight=0.1)
    per_frame = (reconstruction - clips).abs().sum(dim=(1, 3, 4)).mean()
    torch.testing.assert_close(losses["loss"] * 3 * 32 * 32, per_frame + 0.1 * posterior.kl().mean())


def test_lpips_is_added_to_the_error_of_each_number_and_both_are_divided_by_the_variance(reconstructed):
    reconstruction, clips, posterior = reconstructed
    lpips = LPIPS()
    for head in lpips.heads:
        torch.nn.init.ones_(head)
    logvar = torch.tensor(-0.7)
    losses = vidtwin_loss(reconstruction, clips, posterior, 0.0, lpips=lpips, lpips_weight=0.5, logvar=logvar)
    distances = lpips(frames_of(reconstruction), frames_of(clips)).view(2, 4)
    error = (reconstruction - clips).abs() + 0.5 * distances[:, None, :, None, None]
    paper = (error / logvar.exp() + logvar).sum(dim=(1, 3, 4)).mean()
    torch.testing.assert_close(losses["loss"] * 3 * 32 * 32, paper)
    assert losses["loss"] == losses["nll"]


def test_once_or_twice_the_gradients_are_the_same(reconstructed, discriminator):
    """Of all that is learned: what is decoded, and the log-variance."""
    reconstruction, clips, posterior = reconstructed
    lpips = LPIPS().requires_grad_(False)
    for head in lpips.heads:
        torch.nn.init.ones_(head)
    found = []
    for once in (False, True):
        last_layer, logvar = (torch.tensor(value, requires_grad=True) for value in (1.1, -0.7))
        made = reconstruction * last_layer
        losses = vidtwin_loss(made, clips, posterior, 0.1, 0.5, lpips, 0.5, logvar, one_backward=once)
        losses |= adversarial_losses(discriminator, made, losses["nll"], last_layer, one_backward=once)
        total = losses["loss"] + 0.3 * losses["gan_adaptive_weight"] * losses["gan"]
        gradients = torch.autograd.grad(total, (last_layer, logvar, made))
        found.append([*gradients, *losses.values()])
    torch.testing.assert_close(found[1], found[0])


def test_later_frames_are_hidden_from_a_share_of_the_clips():
    """From a frame on that is never the first, each later one alike often; half a batch as in the whole."""
    clips = torch.rand(600, 3, 5, 2, 2) + 1

    def hidden(share: float, rows: slice = slice(None)) -> torch.Tensor:
        draw = BatchDraw(torch.Generator(), torch.Generator().manual_seed(0), len(clips), rows)
        return hide_later_frames(clips[rows], share, draw)

    assert torch.equal(hidden(0.0), clips)
    assert (hidden(1.0)[:, :, -1] == 0).all()
    seen = hidden(0.5)
    num_seen = (seen[:, 0, :, 0, 0] != 0).sum(1)
    for count, frames in enumerate(num_seen.tolist()):
        assert torch.equal(seen[count, :, :frames], clips[count, :, :frames])
        assert not seen[count, :, frames:].any()
    shares = num_seen.bincount() / len(clips)
    assert shares[0] == 0
    torch.testing.assert_close(shares[1:], torch.tensor([0.125, 0.125, 0.125, 0.125, 0.5]), atol=0.06, rtol=0)
    assert torch.equal(hidden(0.5, slice(300, 600)), seen[300:])


def test_noise_has_a_strength_of_each_clip_and_a_scale_of_each_number():
    std, size = torch.tensor([1.0, 0.5]).repeat_interleave(500), 600

    def noise(rows: slice = slice(None)) -> torch.Tensor:
        draw = BatchDraw(torch.Generator(), torch.Generator().manual_seed(0), size, rows)
        return noise_for_decoding(std, 0.4, draw)

    whole = noise()
    strengths = whole[:, :500].square().mean(1).sqrt()  # of the magnitude of a normal number
    assert strengths.mean().item() == pytest.approx(0.4 * math.sqrt(2 / math.pi), rel=0.1)
    assert strengths.square().mean().sqrt().item() == pytest.approx(0.4, rel=0.1)
    torch.testing.assert_close(whole[:, 500:].square().mean(1).sqrt(), strengths / 2, rtol=0.2, atol=0)
    assert torch.equal(noise(slice(100, 300)), whole[100:300])


def test_the_learned_variance_settles_at_the_error():
    """nll = r / e^s + s is least at s = log r."""
    module = LogVariance()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(300):
        logvar = module()
        (0.25 / logvar.exp() + logvar).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert module.logvar.exp().item() == pytest.approx(0.25, rel=1e-3)


def test_the_hinge_rewards_margins_of_one():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])
    assert hinge_loss(real, fake).item() == 0.5 * ((0 + 0.5) / 2 + (0 + 1.5) / 2)
    assert hinge_loss(torch.ones(2), -torch.ones(2)) == 0
    assert generator_loss(fake).item() == 1.25


def test_the_adaptive_weight_makes_the_pulls_equal():
    last_layer = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    nll, adversarial = (last_layer * torch.tensor([3.0, 4.0])).sum(), 0.5 * last_layer[0]
    weight = adaptive_weight(nll, adversarial, last_layer)
    assert weight.item() == pytest.approx(5 / (0.5 + 1e-4))
    assert not weight.requires_grad and last_layer.grad is None
    assert adaptive_weight(nll, 0.0 * last_layer.sum(), last_layer).item() == 1e4


def test_the_released_discriminator_has_as_many_parameters_and_logits(discriminator):
    with torch.device("meta"):
        model = PatchDiscriminator()
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1, 26, 26)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_765_633
    assert discriminator(torch.zeros(1, 3, 24, 24)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="at least 24 pixels a side"):
        discriminator(torch.zeros(1, 3, 23, 40))


@pytest.mark.parametrize("channels", [0, 24, 100])
def test_channels_that_cannot_be_grouped_are_refused_by_the_flags_name(channels):
    assert PatchDiscriminator(base_channels=48)(torch.zeros(1, 3, 24, 24)).isfinite().all()
    with pytest.raises(ValueError, match="power of 2 or a multiple of 16 as --discriminator_channels"):
        PatchDiscriminator(base_channels=channels)


@torch.no_grad()
def test_a_frame_is_judged_alone(discriminator):
    """Not so with the batch normalisation of the released one, whose statistics the generator also moves."""
    frames = torch.randn(4, 3, 32, 32)
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    logits = discriminator.train()(frames)
    torch.testing.assert_close(discriminator(frames[1:2]), logits[1:2])
    assert all(torch.equal(value, before[name]) for name, value in discriminator.state_dict().items())


def test_each_side_of_the_game_teaches_its_own_network(reconstructed, discriminator):
    reconstruction, clips, _ = reconstructed
    last_layer = torch.nn.Parameter(torch.ones(()))
    made = reconstruction * last_layer

    losses = discriminator_losses(discriminator, clips, made)
    losses["discriminator_loss"].backward()
    assert last_layer.grad is None
    # inside the margins the last bias is pulled as hard by the real as by the reconstructed frames
    assert all(p.grad.any() for name, p in discriminator.named_parameters() if name != "layers.11.bias")
    real, fake = discriminator(frames_of(clips)), discriminator(frames_of(made))
    torch.testing.assert_close(losses["discriminator_loss"], hinge_loss(real, fake))
    torch.testing.assert_close(losses["logits_fake"], fake.mean())

    discriminator.zero_grad()
    nll = (made - clips).abs().mean()
    losses = adversarial_losses(discriminator, made, nll, last_layer)
    (nll + losses["gan_adaptive_weight"] * losses["gan"]).backward()
    assert last_layer.grad.any()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
