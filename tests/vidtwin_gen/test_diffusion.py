"""The objectives agree with themselves and with the schedulers that sample them."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from vidtwin_gen.diffusion import (
    contrastive_loss,
    diffuse,
    drop_labels,
    grid_losses,
    make_scheduler,
    sample_sigmas,
    sample_timesteps,
    shift_sigma,
    total_loss,
)
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.parametrization import (
    MIN_SIGMA,
    PREDICTION_TYPES,
    interpolate,
    noise_shift,
    timestep_of,
    velocity,
    velocity_from_x0,
    x0_from_velocity,
)

LAYOUT = LatentLayout(
    (
        LatentGrid("structure", ("query", "height"), (4, 3), 2),
        LatentGrid("dynamics", ("time", "height"), (2, 3), 1),
    )
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pair():
    draw = generator()
    return torch.randn(5, 30, generator=draw), torch.randn(5, 30, generator=draw)


def test_data_come_back_from_the_velocity(pair):
    x0, noise = pair
    sigma = sample_sigmas(5, generator())
    x_sigma, v = interpolate(x0, noise, sigma), velocity(x0, noise)
    torch.testing.assert_close(x0_from_velocity(x_sigma, v, sigma), x0)


def test_x0_says_the_velocity_and_comes_back_from_it(pair):
    x0, noise = pair
    sigma = torch.tensor([MIN_SIGMA, 0.2, 0.5, 0.9, 1.0])
    x_sigma = interpolate(x0, noise, sigma)
    torch.testing.assert_close(velocity_from_x0(x_sigma, x0, sigma), velocity(x0, noise))
    torch.testing.assert_close(x0_from_velocity(x_sigma, velocity_from_x0(x_sigma, x0, sigma), sigma), x0)


def test_an_error_of_x0_counts_at_most_twenty_times_in_the_velocity(pair):
    x0, noise = pair
    sigma = torch.tensor([0.0, 1e-4, 0.01, MIN_SIGMA, 1.0])
    x_sigma = interpolate(x0, noise, sigma)
    difference = velocity_from_x0(x_sigma, x0 + 1, sigma) - velocity_from_x0(x_sigma, x0, sigma)
    expected = torch.tensor([20.0, 20.0, 20.0, 20.0, 1.0])[:, None].expand(5, 30)
    torch.testing.assert_close(-difference, expected, rtol=1e-4, atol=0)
    share = velocity_from_x0(x_sigma, x0, sigma)[1] / velocity(x0, noise)[1]
    torch.testing.assert_close(share, torch.full((30,), 1e-4 / MIN_SIGMA), rtol=1e-2, atol=0)


def test_the_path_runs_from_data_to_noise(pair):
    x0, noise = pair
    assert torch.equal(interpolate(x0, noise, torch.zeros(5)), x0)
    assert torch.equal(interpolate(x0, noise, torch.ones(5)), noise)
    step = 1e-3
    slope = (
        interpolate(x0, noise, torch.full((5,), 0.5 + step)) - interpolate(x0, noise, torch.full((5,), 0.5))
    ) / step
    torch.testing.assert_close(slope, velocity(x0, noise), atol=1e-3, rtol=1e-3)


def test_the_scheduler_means_the_same_noise_level(pair):
    x0, noise = pair
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    timestep = scheduler.timesteps[torch.tensor([0, 10, 500, 800, 999])]
    ours = interpolate(x0, noise, timestep / 1000)
    torch.testing.assert_close(scheduler.scale_noise(x0, timestep, noise), ours)
    levels = torch.linspace(0.001, 1, 1000).flip(0)
    torch.testing.assert_close(timestep_of(shift_sigma(levels, 3.0)), scheduler.timesteps)


@pytest.mark.parametrize("num_steps", [1, 7])
def test_the_true_velocity_field_leads_the_scheduler_to_the_data(pair, num_steps):
    x0, latents = pair
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(num_steps)
    for t in scheduler.timesteps:
        latents = scheduler.step((latents - x0) / (t / 1000), t, latents, return_dict=False)[0]
    torch.testing.assert_close(latents, x0, atol=1e-5, rtol=1e-5)


def test_sigmas_are_logit_normal_and_repeatable():
    sigma = sample_sigmas(20_000, generator(), logit_mean=0.5, logit_std=2.0)
    assert sigma.min() >= 0 and sigma.max() <= 1
    logits = torch.logit(sigma.double())
    assert logits.mean() == pytest.approx(0.5, abs=0.05) and logits.std() == pytest.approx(2.0, abs=0.05)
    assert torch.equal(sigma, sample_sigmas(20_000, generator(), logit_mean=0.5, logit_std=2.0))
    assert not torch.equal(sigma, sample_sigmas(20_000, generator(1), logit_mean=0.5, logit_std=2.0))


def test_shift_moves_towards_the_noise_and_keeps_the_ends():
    sigma = torch.linspace(0, 1, 11)
    assert torch.equal(shift_sigma(sigma, 1.0), sigma)
    assert (shift_sigma(sigma, 3.0)[1:-1] > sigma[1:-1]).all()
    torch.testing.assert_close(shift_sigma(sigma, 3.0)[[0, -1]], sigma[[0, -1]])
    torch.testing.assert_close(shift_sigma(shift_sigma(sigma, 3.0), 1 / 3), sigma)


def test_ddpm_runs_from_data_to_noise_and_keeps_their_variance(pair):
    x0, noise = pair
    alpha_bar = make_scheduler("paper").alphas_cumprod[sample_timesteps(5, generator())]
    squares = diffuse(x0, noise, alpha_bar) ** 2 + diffuse(noise, -x0, alpha_bar) ** 2  # a rotation
    torch.testing.assert_close(squares, x0**2 + noise**2)
    assert torch.equal(diffuse(x0, noise, torch.ones(5)), x0)
    assert torch.equal(diffuse(x0, noise, torch.zeros(5)), noise)


def test_ddpm_keeps_unit_variance_and_means_the_schedulers_levels(pair):
    x0, noise = pair
    scheduler, timestep = make_scheduler("paper"), torch.tensor([0, 10, 500, 800, 999])
    ours = diffuse(x0, noise, scheduler.alphas_cumprod[timestep])
    torch.testing.assert_close(scheduler.add_noise(x0, noise, timestep), ours)
    wide = torch.randn(2, 5, 20_000, generator=generator())
    variance = diffuse(*wide, scheduler.alphas_cumprod[timestep]).var(dim=1)
    torch.testing.assert_close(variance, torch.ones(5), atol=0.05, rtol=0)


@pytest.mark.parametrize("num_steps", [1, 8, 50])
def test_the_true_x0_leads_ddim_to_the_data_from_pure_noise(pair, num_steps):
    x0, latents = pair
    x0 = 3 * x0  # nothing is clipped
    scheduler = make_scheduler("paper")
    scheduler.set_timesteps(num_steps)
    assert scheduler.timesteps[0] == 999 and scheduler.config.prediction_type == PREDICTION_TYPES["paper"]
    for t in scheduler.timesteps:
        latents = scheduler.step(x0, t, latents, return_dict=False)[0]
    torch.testing.assert_close(latents, x0, atol=1e-4, rtol=1e-4)


def test_timesteps_are_uniform_and_repeatable():
    steps = sample_timesteps(50_000, generator())
    assert steps.min() == 0 and steps.max() == 999 and steps.dtype == torch.long
    assert steps.double().mean() == pytest.approx(499.5, abs=5)
    assert torch.bincount(steps // 100).float().std() < 150
    assert torch.equal(steps, sample_timesteps(50_000, generator()))


def test_flow_sampling_has_the_shift_of_the_training():
    assert make_scheduler("flow", shift=3.0).config.shift == 3.0
    assert type(make_scheduler("flow")) is FlowMatchEulerDiscreteScheduler


def test_the_shift_of_a_latent_goes_with_the_root_of_its_size():
    assert noise_shift("auto", 4096) == 1.0 and noise_shift("auto", 4 * 4096) == 2.0
    assert noise_shift("2.5", 4096) == 2.5


def test_the_other_class_is_the_next_one_in_the_batch(pair):
    """Of the five samples two are of one class, and one has lost its label."""
    prediction, target = pair
    labels, null_class = torch.tensor([3, 3, 9, 1, 4]), 9
    others = {0: 3, 1: 3, 3: 4, 4: 0}
    by_hand = sum((prediction[i] - target[j]).square().mean() for i, j in others.items()) / 5
    torch.testing.assert_close(contrastive_loss(prediction, target, labels, null_class, LAYOUT), by_hand)


def test_the_contrast_is_weighted_as_the_loss_is(pair):
    prediction, target = pair
    labels, others = torch.tensor([0, 1, 0, 1, 0]), [1, 2, 3, 4, 1]
    for weighting in ("element", "grid"):
        expected = total_loss(grid_losses(prediction, target[others], LAYOUT), LAYOUT, weighting)
        found = contrastive_loss(prediction, target, labels, 9, LAYOUT, weighting)
        torch.testing.assert_close(found, expected)


def test_without_another_class_nothing_is_contrasted(pair):
    prediction, target = pair
    prediction.requires_grad_()
    loss = contrastive_loss(prediction, target, torch.tensor([3, 3, 9, 3, 9]), 9, LAYOUT)
    loss.backward()
    assert loss == 0 and not prediction.grad.any()


def test_element_weighting_is_the_plain_mean_squared_error(pair):
    losses = grid_losses(*pair, LAYOUT)
    expected = torch.nn.functional.mse_loss(*pair)
    torch.testing.assert_close(total_loss(losses, LAYOUT, "element"), expected)


def test_grid_weighting_counts_every_grid_once():
    prediction, target = torch.zeros(2, 30), torch.zeros(2, 30)
    target[:, 24:] = 1.0  # the whole of dynamics, a fifth of the numbers
    losses = grid_losses(prediction, target, LAYOUT)
    assert {name: loss.item() for name, loss in losses.items()} == {"structure": 0.0, "dynamics": 1.0}
    assert total_loss(losses, LAYOUT, "grid").item() == pytest.approx(0.5)
    assert total_loss(losses, LAYOUT, "element").item() == pytest.approx(0.2)
    with pytest.raises(ValueError, match="tokens"):
        total_loss(losses, LAYOUT, "tokens")


def test_loss_is_computed_in_float32(pair):
    half = [part.to(torch.bfloat16) for part in pair]
    assert {loss.dtype for loss in grid_losses(*half, LAYOUT).values()} == {torch.float32}


def test_labels_are_dropped_at_the_given_rate():
    labels = torch.arange(10_000) % 7
    drawn = torch.rand(labels.shape, generator=generator())
    dropped = drop_labels(labels, 7, 0.2, drawn)
    assert (dropped == 7).float().mean() == pytest.approx(0.2, abs=0.02)
    assert torch.equal(dropped[dropped != 7], labels[dropped != 7])
    assert torch.equal(drop_labels(labels, 7, 0.0, drawn), labels)
    assert (drop_labels(labels, 7, 1.0, drawn) == 7).all()
    assert dropped.dtype == torch.long
