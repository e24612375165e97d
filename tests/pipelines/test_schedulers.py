"""Every scheduler samples what it should, from a denoiser whose answer is known, and others are refused."""

import inspect
import math

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)
from diffusers.utils import DummyObject

from pipelines.schedulers import SETTINGS, SETTINGS_OF_ALL, UNFIT, check_scheduler
from tests.builders.gaussian import (
    FLOW,
    ODE_SOLVERS,
    RHO,
    STOCHASTIC,
    UNGUIDED,
    X0,
    build_gaussian,
    end_of_the_ode,
)
from tests.builders.pipelines import build_pipeline, generate, seeded
from vidtwin_gen.diffusion import make_scheduler


@pytest.mark.parametrize("name", ODE_SOLVERS)
def test_an_ode_solver_ends_where_the_flow_does(name):
    prediction_type, scheduler, tolerance = ODE_SOLVERS[name]
    pipe = build_gaussian(scheduler, prediction_type)
    noise = torch.randn(2, pipe.transformer.layout.num_elements, generator=seeded(0)[0])
    sample = generate(pipe, [3, 1], latents=noise, **UNGUIDED)
    expected = end_of_the_ode(pipe.transformer.layout, noise, torch.tensor([[1.5], [0.5]]))
    assert (sample - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_scheduler_that_draws_noise_samples_the_distribution(name):
    prediction_type, scheduler = STOCHASTIC[name]
    pipe = build_gaussian(scheduler, prediction_type)
    check_distribution(pipe, generate(pipe, 2, num_videos_per_class=64, **UNGUIDED))


def check_distribution(pipe, clips):
    centred = clips - 1.0  # the mean of class 2
    assert abs(centred.mean()) < 0.05
    assert centred.var() == pytest.approx(1.0, abs=0.2)
    structure = pipe.transformer.layout.grids[0].num_elements
    paired = min(structure, clips.shape[1] - structure)
    products = centred[:, :paired] * centred[:, structure : structure + paired]
    assert products.mean() == pytest.approx(RHO, abs=0.15)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_noise_of_the_steps_comes_from_the_clips_own_generator(name):
    prediction_type, scheduler = STOCHASTIC[name]
    pipe = build_gaussian(scheduler, prediction_type)
    options = UNGUIDED | {"num_inference_steps": 4}
    together = generate(pipe, [0, 1, 2], generator=seeded(5, 6, 7), **options)
    torch.manual_seed(1)
    alone = generate(pipe, 1, generator=seeded(6), **options)
    torch.testing.assert_close(together[1], alone[0], atol=1e-4, rtol=1e-4)


def test_the_time_is_not_rounded():
    """Multistep schedulers keep whole timesteps; the transformer is told the noise that is there."""
    pipe = build_gaussian(UniPCMultistepScheduler(**FLOW, flow_shift=3.0))
    times = []
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: times.append(float(kwargs["timestep"][0])), with_kwargs=True
    )
    generate(pipe, **UNGUIDED | {"num_inference_steps": 7})
    assert times == pytest.approx((pipe.scheduler.sigmas[:-1] * 1000).tolist(), abs=1e-3)
    assert times[3] != int(times[3]) == int(pipe.scheduler.timesteps[3])


def test_more_steps_than_whole_timesteps_are_told_apart():
    """Where rounded timesteps repeat, looking a step up by its timestep would skip some."""
    pipe = build_gaussian(UniPCMultistepScheduler(**FLOW, flow_shift=8.0))
    noise = torch.randn(1, pipe.transformer.layout.num_elements, generator=seeded(0)[0])
    sample = generate(pipe, 0, latents=noise, **UNGUIDED | {"num_inference_steps": 300})
    assert len(pipe.scheduler.timesteps.unique()) < 300
    expected = end_of_the_ode(pipe.transformer.layout, noise, torch.zeros(1, 1))
    assert (sample - expected).norm() < 1e-3 * expected.norm()


def test_a_schedule_of_ones_own():
    options = {"guidance_scale": 1.0, "output_type": "latent"}
    pipe = build_gaussian(FlowMatchEulerDiscreteScheduler())
    calls = []
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(float(kwargs["timestep"][0])), with_kwargs=True
    )
    by_sigma = generate(pipe, sigmas=[1.0, 0.6, 0.2], **options)
    assert calls == pytest.approx([1000, 600, 200], abs=1e-3) and pipe.num_timesteps == 3
    torch.testing.assert_close(generate(pipe, timesteps=[1000.0, 600.0, 200.0], **options), by_sigma)
    for scheduler, name in (
        (FlowMatchEulerDiscreteScheduler(shift=2.0), "shift"),
        (UniPCMultistepScheduler(**FLOW, flow_shift=2.0), "flow_shift"),
    ):
        pipe = build_gaussian(scheduler)
        generate(pipe, sigmas=[1.0, 0.5, 0.25], **options)
        moved = pipe.scheduler.sigmas[:3].tolist()
        assert moved == pytest.approx([1, 2 / 3, 0.4], abs=1e-3), name  # 2 s / (1 + s)
    pipe = build_gaussian(DDPMScheduler(**X0, clip_sample=False), "sample")
    generate(pipe, timesteps=[999, 500, 0], **options)
    assert pipe.scheduler.timesteps.tolist() == [999, 500, 0]


def test_a_schedule_that_ends_in_0_makes_no_nan():
    options = {"guidance_scale": 1.0, "output_type": "latent"}
    pipe = build_pipeline()
    assert generate(pipe, sigmas=[1.0, 0.5, 0.0], **options).isfinite().all()
    pipe.scheduler = UniPCMultistepScheduler(**FLOW)  # which adds a 0 of its own
    for least in (0.0, 1e-60):
        with pytest.raises(ValueError, match="leave the 0 out of sigmas"):
            generate(pipe, sigmas=[1.0, 0.5, least], **options)
    assert generate(pipe, sigmas=[1.0, 0.5], **options).isfinite().all()


@pytest.mark.parametrize("scheduler", [FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler])
def test_a_shift_that_float32_rounds_above_1_samples(scheduler):
    pipe = build_gaussian(scheduler())
    highest = []
    for shift in (0.2, 0.4, *(math.sqrt(length / 4096) for length in range(128, 4096, 64))):
        pipe.scheduler = scheduler(shift=shift)
        generate(pipe, num_inference_steps=2, guidance_scale=1.0, output_type="latent")
        highest.append(pipe.scheduler.sigmas[0].item())
    assert max(highest) > 1


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"sigmas": [0.2, 0.6]}, "sigmas must fall"),
        ({"sigmas": [1.5, 0.5]}, "at most 1 "),
        ({"sigmas": []}, "sigmas must fall"),
        ({"sigmas": "1"}, "sigmas must fall"),
        ({"sigmas": [None]}, "sigmas must fall"),
        ({"sigmas": [[1.0, 0.5]]}, "sigmas must fall"),
        ({"sigmas": [[1.0], [0.5, 0.2]]}, "sigmas must fall"),
        ({"timesteps": 5}, "timesteps must fall"),
        ({"timesteps": [1001.0, 1.0]}, "at most 1000"),
        ({"timesteps": [1000.0], "sigmas": [1.0]}, "Only one of"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        generate(build_gaussian(FlowMatchEulerDiscreteScheduler()), **schedule)
    stretched = FlowMatchEulerDiscreteScheduler(shift_terminal=0.1)  # diffusers divides 0 by 0 for one step
    with pytest.raises(ValueError, match="noise levels go from nan"):
        generate(build_gaussian(stretched), num_inference_steps=1)
    with pytest.raises(ValueError, match="does not support custom sigmas"):
        generate(build_gaussian(FlowMatchHeunDiscreteScheduler()), sigmas=[1.0, 0.5])


@pytest.mark.parametrize(
    ("prediction_type", "scheduler", "seen"),
    [
        ("flow_prediction", UniPCMultistepScheduler(), "use_flow_sigmas=False, prediction_type='epsilon'"),
        ("flow_prediction", DPMSolverMultistepScheduler(**FLOW | X0), "prediction_type='sample'"),
        ("flow_prediction", UniPCMultistepScheduler(**FLOW, thresholding=True), "thresholding=True"),
        ("flow_prediction", FlowMatchEulerDiscreteScheduler(100), "num_train_timesteps=100"),
        ("flow_prediction", FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "shifting=True"),
        ("flow_prediction", FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "invert_sigmas=True"),
        ("sample", DDIMScheduler(), "prediction_type='epsilon', clip_sample=True"),
        ("sample", DDIMScheduler(**X0), "clip_sample=True"),
        ("sample", DDPMScheduler(500, **X0, clip_sample=False), "num_train_timesteps=500"),
        ("sample", DPMSolverMultistepScheduler(**FLOW), "use_flow_sigmas=True"),
        ("sample", DDIMScheduler(**X0, clip_sample=False, beta_end=0.012), "beta_end=0.012"),
        ("sample", LCMScheduler(clip_sample=False), "prediction_type='epsilon'"),
        ("sample", DDIMScheduler(**X0, clip_sample=False, trained_betas=[0.01] * 1000), "trained_betas="),
        (
            "sample",
            DPMSolverMultistepScheduler(
                **X0, algorithm_type="sde-dpmsolver", solver_order=3, final_sigmas_type="sigma_min"
            ),
            "solver_order=3",
        ),
        (
            "flow_prediction",
            DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++", solver_order=3),
            "solver_order=3",
        ),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "config") else None,
)
def test_a_scheduler_of_the_wrong_kind_is_refused_with_the_line_that_helps(prediction_type, scheduler, seen):
    pipe = build_gaussian(scheduler, prediction_type)
    pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=seen) as error:
        generate(pipe)
    assign_as_told(pipe, error)
    check_scheduler(pipe.scheduler, prediction_type)
    assert type(pipe.scheduler) is type(scheduler)


def assign_as_told(pipe, error):
    line = str(error.value).split("pipe.scheduler = ")[-1]
    pipe.scheduler = eval(line, globals() | {"pipe": pipe})


TRAINED = FlowMatchEulerDiscreteScheduler(shift=2.0)
REFUSED = {
    "ddim": DDIMScheduler(),
    "pndm": PNDMScheduler(),
    "unipc": UniPCMultistepScheduler(),
    "unipc, its shift alone": UniPCMultistepScheduler(**FLOW, flow_shift=0.0),
    "unipc, for ddpm": UniPCMultistepScheduler(
        **X0, use_karras_sigmas=True, final_sigmas_type="sigma_min", solver_type="bh1"
    ),
    "dpm": DPMSolverMultistepScheduler(),
    "dpm, for ddpm": DPMSolverMultistepScheduler(**X0, use_karras_sigmas=True),
    "dpm, its noise levels alone": DPMSolverMultistepScheduler(**FLOW, use_lu_lambdas=True),
    "dpm singlestep": DPMSolverSinglestepScheduler(),
    "deis": DEISMultistepScheduler(),
    "deis, of a flow": DEISMultistepScheduler(**FLOW),
    "sa": SASolverScheduler(),
    "euler": FlowMatchEulerDiscreteScheduler(num_train_timesteps=100),
    "heun": FlowMatchHeunDiscreteScheduler(num_train_timesteps=100),
}


@pytest.mark.parametrize("known_by", ["record", "config"])
@pytest.mark.parametrize("name", REFUSED)
def test_the_line_that_helps_gives_the_noise_levels_of_the_training(name, known_by):
    refused = REFUSED[name]
    if known_by == "config":  # made of the pipeline's scheduler, with settings of its own
        own = {*inspect.signature(type(refused).__init__).parameters} - {*refused.config._use_default_values}
        own_settings = {key: refused.config[key] for key in own if key in refused.config}
        refused = type(refused).from_config(TRAINED.config, **own_settings)
    pipe = build_gaussian(refused, shift="2.0" if known_by == "record" else None)
    steps = UNGUIDED | {"num_inference_steps": 8}
    with pytest.raises(ValueError, match="Assign pipe.scheduler = ") as error:
        generate(pipe, **steps)
    assign_as_told(pipe, error)
    assert generate(pipe, **steps).isfinite().all()
    sigmas = pipe.scheduler.sigmas[pipe.scheduler.sigmas > 0].unique()
    if "FlowMatch" in type(pipe.scheduler).__name__:
        TRAINED.set_timesteps(8)
        torch.testing.assert_close(sigmas, TRAINED.sigmas[TRAINED.sigmas > 0].unique())
    unshifted = sigmas / (2 - sigmas)  # others end elsewhere, with levels as far apart
    torch.testing.assert_close(unshifted.diff(), unshifted.diff().mean().expand(7), atol=1e-3, rtol=0)
    assert sigmas[-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_a_default_of_a_saved_scheduler_is_nobodys_choice(kind, tmp_path):
    kind().save_pretrained(tmp_path)
    pipe = build_gaussian(kind.from_pretrained(tmp_path), shift="2.0")
    with pytest.raises(ValueError, match=r"flow_shift=2\.0") as error:
        generate(pipe)
    assign_as_told(pipe, error)
    assert pipe.scheduler.config.flow_shift == 2.0


def test_where_the_trained_shift_is_not_known_the_line_says_which_number_it_is():
    for scheduler, line in (
        (DDIMScheduler(), "FlowMatchEulerDiscreteScheduler(shift=...), where ... is the --shift that"),
        (UniPCMultistepScheduler(**FLOW, thresholding=True), "thresholding=False, flow_shift=...), where"),
    ):
        with pytest.raises(ValueError) as error:
            generate(build_gaussian(scheduler, shift=None))
        assert line in str(error.value)


@pytest.mark.parametrize(
    ("scheduler", "shift", "line"),
    [
        (
            DDIMScheduler.from_config(UniPCMultistepScheduler(**FLOW, flow_shift=3.0).config),
            None,
            "shift=3.0)",
        ),
        (DDIMScheduler(), "auto", f"shift={(192 / 4096) ** 0.5})"),
        (DDIMScheduler.from_config(TRAINED.config), "3.0", "shift=3.0)"),
        (SASolverScheduler.from_config(TRAINED.config, **FLOW), None, "shift=2.0)"),
    ],
)
def test_where_the_trained_shift_is_looked_for(scheduler, shift, line):
    pipe = build_gaussian(scheduler, shift=shift)
    with pytest.raises(ValueError) as error:
        generate(pipe)
    assert str(error.value).endswith(f"Assign pipe.scheduler = FlowMatchEulerDiscreteScheduler({line}")


def test_a_shift_that_somebody_chose_stays():
    pipe = build_gaussian(UniPCMultistepScheduler(**FLOW, thresholding=True, flow_shift=3.0), shift="2.0")
    with pytest.raises(ValueError, match="Assign pipe.scheduler = ") as error:
        generate(pipe)
    assign_as_told(pipe, error)
    assert pipe.scheduler.config.flow_shift == 3.0 and not pipe.scheduler.config.thresholding


@pytest.mark.parametrize(
    ("prediction_type", "scheduler", "way_out"),
    [
        (
            "flow_prediction",
            DDIMScheduler(**X0, clip_sample=False),
            "FlowMatchEulerDiscreteScheduler(shift=1",
        ),
        ("flow_prediction", DEISMultistepScheduler(**FLOW), "FlowMatchEulerDiscreteScheduler(shift=1.0)"),
        ("flow_prediction", SASolverScheduler(**FLOW), "FlowMatchEulerDiscreteScheduler(shift=1.0)"),
        ("sample", FlowMatchEulerDiscreteScheduler(), "DDIMScheduler(prediction_type='sample'"),
    ],
)
def test_a_scheduler_of_the_other_family_cannot_be_changed_into_one(prediction_type, scheduler, way_out):
    with pytest.raises(ValueError) as error:
        generate(build_gaussian(scheduler, prediction_type))
    assert type(scheduler).__name__ in str(error.value) and way_out in str(error.value)


def test_a_network_of_x0_takes_the_schedulers_of_a_flow():
    """Not those that take x_0: what the pipeline sees of it is a velocity."""
    pipe = build_pipeline(predicts_x0=True)
    for scheduler in (DDIMScheduler(**X0, clip_sample=False), DDIMScheduler(), DDPMScheduler()):
        pipe.scheduler = scheduler
        with pytest.raises(ValueError, match=r"velocity of a flow.* = FlowMatchEulerDiscreteScheduler\("):
            generate(pipe)
    for scheduler in (FlowMatchHeunDiscreteScheduler(), UniPCMultistepScheduler(**FLOW)):
        pipe.scheduler = scheduler
        assert generate(pipe, guidance_scale=1.0, output_type="latent").isfinite().all()


@pytest.mark.parametrize(
    ("prediction_type", "right", "wrong_class"),
    [
        ("flow_prediction", UniPCMultistepScheduler(**FLOW), EulerDiscreteScheduler),
        ("sample", DDIMScheduler(**X0, clip_sample=False), FlowMatchEulerDiscreteScheduler),
    ],
    ids=["flow", "paper"],
)
def test_settings_that_from_config_keeps_unused_count_for_nothing(prediction_type, right, wrong_class):
    pipe = build_gaussian(wrong_class.from_config(right.config), prediction_type)
    assert pipe.scheduler.config.prediction_type == prediction_type
    with pytest.raises(ValueError, match=f"pipe.scheduler is a {wrong_class.__name__}"):
        generate(pipe)
    pipe.scheduler = type(right).from_config(pipe.scheduler.config)
    generate(pipe)


@pytest.mark.parametrize("unfit", sorted(UNFIT))
def test_schedulers_that_fail_in_the_middle_are_refused_at_the_start(unfit):
    scheduler = getattr(diffusers, unfit).from_config(DDIMScheduler(**X0, clip_sample=False).config)
    with pytest.raises(ValueError, match=f"pipe.scheduler is a {unfit};"):
        check_scheduler(scheduler, "sample")


def can_be_made(scheduler_class):
    """Not those of packages that are not installed, and of other kinds of data, which need arguments."""
    if isinstance(scheduler_class, DummyObject):
        return False
    parameters = [*inspect.signature(scheduler_class.__init__).parameters.values()][1:]
    return all(parameter.default is not parameter.empty for parameter in parameters)


ALL = [
    name for name in dir(diffusers) if name.endswith("Scheduler") and can_be_made(getattr(diffusers, name))
]
# for distilled networks, whose every prediction is a sample: from another's they sample too little
CONSISTENCY = {"FlowMatchLCMScheduler", "LCMScheduler", "TCDScheduler"}


@pytest.mark.parametrize("prediction_type", SETTINGS)
@pytest.mark.parametrize("name", sorted({*ALL} - CONSISTENCY - UNFIT))
def test_what_is_not_refused_samples_the_distribution(name, prediction_type):
    scheduler_class = getattr(diffusers, name)
    known = inspect.signature(scheduler_class.__init__).parameters
    settings = SETTINGS[prediction_type] | SETTINGS_OF_ALL
    scheduler = scheduler_class(**{key: value for key, value in settings.items() if key in known})
    pipe = build_gaussian(scheduler, prediction_type)
    try:
        clips = generate(pipe, 2, num_videos_per_class=64, **UNGUIDED)
    except ValueError as error:
        assert "pipe.scheduler is a" in str(error)
    else:
        check_distribution(pipe, clips)


@pytest.mark.parametrize(
    ("scheduler", "seen"),
    [
        (
            DPMSolverMultistepScheduler(**FLOW, use_karras_sigmas=True),
            "use_karras_sigmas=True, whose .* from 1",
        ),
        (DPMSolverMultistepScheduler(**FLOW, use_lu_lambdas=True), "use_lu_lambdas=True"),
        (UniPCMultistepScheduler(**FLOW, use_exponential_sigmas=True), "use_exponential_sigmas=True"),
        (UniPCMultistepScheduler(**FLOW, final_sigmas_type="sigma_min"), "final_sigmas_type='sigma_min'"),
        (UniPCMultistepScheduler(**FLOW, solver_type="bh1"), "solver_type='bh1'"),
    ],
)
def test_noise_levels_that_are_no_flows_are_refused_before_the_first_step(scheduler, seen):
    pipe = build_gaussian(scheduler)
    hook = pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=seen) as error:
        generate(pipe)
    hook.remove()
    assign_as_told(pipe, error)
    assert generate(pipe, **UNGUIDED).isfinite().all()


def test_a_solver_with_karras_noise_levels_within_those_of_a_flow_stays():
    pipe = build_gaussian(UniPCMultistepScheduler(**FLOW, use_karras_sigmas=True))
    check_distribution(pipe, generate(pipe, 2, num_videos_per_class=64, **UNGUIDED))


@pytest.mark.parametrize("solver", [DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler])
def test_timesteps_that_a_solver_does_not_take_are_refused(solver):
    with pytest.raises(ValueError, match=rf"{solver.__name__} takes no timesteps for a flow, got \[900\.0"):
        generate(build_gaussian(solver(**FLOW)), timesteps=[900.0, 500.0, 100.0])


def test_an_unused_setting_refuses_nothing():
    ddim = DDIMScheduler(**X0, clip_sample=True)
    euler = FlowMatchEulerDiscreteScheduler.from_config(ddim.config)
    assert euler.config.clip_sample and euler.config.prediction_type == "sample"
    check_scheduler(euler, "flow_prediction")


@pytest.mark.parametrize(("objective", "prediction_type"), [("flow", "flow_prediction"), ("paper", "sample")])
def test_the_schedulers_of_the_training_pass(objective, prediction_type):
    scheduler = make_scheduler(objective)
    check_scheduler(scheduler, prediction_type)
    if objective == "paper":
        asked = {name: SETTINGS["sample"][name] for name in ("beta_start", "beta_end", "beta_schedule")}
        assert asked.items() <= dict(scheduler.config).items()
        assert torch.equal(DDIMScheduler().alphas_cumprod, scheduler.alphas_cumprod)
