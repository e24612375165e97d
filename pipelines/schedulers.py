"""Which diffusers schedulers fit what a transformer predicts, and the line that makes one that does."""

from __future__ import annotations

import inspect
import math
from typing import Any

import diffusers

from vidtwin_gen.models.parametrization import NUM_TRAIN_TIMESTEPS, noise_shift

# Settings that a scheduler must have where it has the setting at all.
SETTINGS: dict[str, dict[str, Any]] = {
    "flow_prediction": {
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
        "invert_sigmas": False,  # from data to noise
    },
    "sample": {
        "use_flow_sigmas": False,
        "prediction_type": "sample",
        "beta_start": 0.0001,  # as the objective; a test compares them
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "trained_betas": None,  # in place of these three
        "rescale_betas_zero_snr": False,
        "snr_shift_scale": 1.0,
        "interpolation_type": "linear",
    },
}
SETTINGS_OF_CLASS = {  # others divide infinity by itself in the last step, whose noise level is 0
    "UniPCMultistepScheduler": {"solver_type": "bh2", "predict_x0": True, "lower_order_final": True},
}
SETTINGS_OF_ALL = {
    "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
    "clip_sample": False,  # both were made for pixels in [-1, 1]; a whitened latent has unit variance
    "thresholding": False,
    "use_dynamic_shifting": False,  # by the length of the sequence, which is the same for every clip
}
ABOVE_1 = 1e-5  # by how much float32 may round a shifted noise level of 1
SHIFTS = {"shift", "flow_shift"}  # of the noise levels: numbers above 0
# Run backwards, or have a noise or arguments of their own, or take prediction_type="sample" and raise at the
# first step: found by trying all that diffusers 0.42 has, as the test does.
UNFIT = {
    "CogVideoXDPMScheduler",
    "DDIMInverseScheduler",
    "DPMSolverMultistepInverseScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "MiniMaxH3Scheduler",
    "PNDMScheduler",
    "SCMScheduler",
    "UnCLIPScheduler",
}
UNFIT_FOR_FLOWS = {"DEISMultistepScheduler", "SASolverScheduler"}  # their noise levels end above 0
# Settings by which solvers for DDPM have a flow's noise levels; others lie beyond 1, or end short of 0.
OTHER_SIGMAS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "final_sigmas_type": "zero",
}
EXPECTED = {
    "flow_prediction": "the velocity of a flow, for FlowMatchEulerDiscreteScheduler, "
    "FlowMatchHeunDiscreteScheduler, or with flow sigmas DPMSolverMultistepScheduler and "
    "UniPCMultistepScheduler",
    "sample": "x0 of a DDPM, for DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler or others that "
    "take prediction_type='sample'",
}
FOR_SAMPLE = "DDIMScheduler(prediction_type='sample', clip_sample=False)"
NO_SHIFT_KNOWN = ", where ... is the --shift that train_dit.py had, 1 where it had none"

# Those that a reader is offered; the saved one comes first.
OFFERED = {
    "flow_prediction": (
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "UniPCMultistepScheduler",
        "DPMSolverMultistepScheduler",
    ),
    "sample": ("DDIMScheduler", "DDPMScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"),
}


def offered_schedulers(scheduler: Any, prediction_type: str) -> dict[str, dict[str, Any]]:
    """Schedulers for what a transformer of this `prediction_type` predicts, by the names of their classes,
    the given one first: what `from_config` needs beside the given one's config."""
    config = scheduler.config
    offered: dict[str, dict[str, Any]] = {type(scheduler).__name__: {}}
    for name in OFFERED[prediction_type]:
        known = inspect.signature(getattr(diffusers, name).__init__).parameters
        wanted = SETTINGS[prediction_type] | SETTINGS_OF_ALL
        wanted |= SETTINGS_OF_CLASS.get(name, {})
        if prediction_type == "flow_prediction":
            wanted |= OTHER_SIGMAS
        wanted |= dict.fromkeys(SHIFTS, given_shift(scheduler) or 1.0)
        settings = {
            key: value
            for key, value in wanted.items()
            if key in known and config.get(key, known[key].default) != value
        }
        offered.setdefault(name, settings)
    return offered


def trained_shift(training: Any, num_elements: int) -> float | None:
    """The shift of the noise levels that a flow was trained with, from a pipeline's record of its `training`;
    None where it has none."""
    try:
        return noise_shift(training["flags"]["shift"], num_elements)
    except (KeyError, TypeError, ValueError):  # or a record that somebody wrote
        return None


def given_shift(scheduler: Any) -> float | None:
    """The shift that a scheduler was given, or else the one that `from_config` kept of the scheduler before;
    None where it has a default alone."""
    given = SHIFTS - set(scheduler.config.get("_use_default_values", ()))  # which `from_config` forgets
    configs = (known_settings(scheduler), scheduler.config)
    values = (config[name] for config in configs for name in sorted(given & config.keys()))
    return next(filter(_is_shift, values), None)


def _is_shift(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < math.inf


def check_scheduler(scheduler: Any, prediction_type: str, shift: float | None = None) -> None:
    """That a scheduler makes samples of what a transformer of this `prediction_type` predicts.

    Args:
        shift: that the transformer was trained with, see `trained_shift`.

    Raises:
        ValueError: it does not; says which schedulers do and the line to type.
    """
    name, known = type(scheduler).__name__, known_settings(scheduler)
    right_family = "prediction_type" in known  # those for DDPM have the setting
    if prediction_type == "flow_prediction":
        right_family = is_flow_matching(scheduler) or "use_flow_sigmas" in known
        right_family &= name not in UNFIT_FOR_FLOWS
    if not right_family or name in UNFIT:
        found = f"pipe.scheduler is a {name}"
        line = FOR_SAMPLE if prediction_type == "sample" else flow_match_euler(scheduler, shift)
    else:
        wanted = SETTINGS[prediction_type] | SETTINGS_OF_ALL
        if known.get("final_sigmas_type") == "zero":
            wanted |= SETTINGS_OF_CLASS.get(name, {})
        settings = {key: value for key, value in wanted.items() if known.get(key, value) != value}
        stochastic = str(known.get("algorithm_type")).startswith("sde-")
        if name == "DPMSolverMultistepScheduler" and stochastic and known["solver_order"] == 3:
            settings["solver_order"] = 2  # in diffusers 0.42 the third fails in a step or leaves noise
        if str(known.get("variance_type")).startswith("learned"):  # which the transformer does not predict
            settings["variance_type"] = "fixed_small"
        settings |= {key: 1.0 for key in SHIFTS & known.keys() if not _is_shift(known[key])}
        if not settings:
            return
        values = ", ".join(f"{key}={known[key]!r}" for key in settings)
        found = f"pipe.scheduler is a {name} with {values}"
        if prediction_type == "flow_prediction":
            if "use_flow_sigmas" in known:
                wanted = OTHER_SIGMAS | SETTINGS_OF_CLASS.get(name, {})
                settings |= {key: value for key, value in wanted.items() if known.get(key, value) != value}
            settings |= _shift_to_give(scheduler, shift)
        line = _from_config(name, settings)
    raise ValueError(
        f"{found}; the transformer predicts {EXPECTED[prediction_type]}. Assign pipe.scheduler = {line}"
    )


def _from_config(name: str, settings: dict[str, Any]) -> str:
    """The line that makes a scheduler of the pipeline's own, with other settings."""
    changes = ", ".join(f"{key}={'...' if value is ... else repr(value)}" for key, value in settings.items())
    line = f"{name}.from_config(pipe.scheduler.config, {changes})"
    return line + NO_SHIFT_KNOWN if ... in settings.values() else line


def flow_match_euler(scheduler: Any, shift: float | None) -> str:
    """The line that makes the scheduler of the training."""
    shift = shift or given_shift(scheduler)
    return f"FlowMatchEulerDiscreteScheduler(shift={shift or '...'})" + ("" if shift else NO_SHIFT_KNOWN)


def _shift_to_give(scheduler: Any, shift: float | None) -> dict[str, Any]:
    """The trained shift by the name that the scheduler has for it, ... where it is not known; nothing where
    the scheduler has it, or where it is a flow's already and somebody has chosen another."""
    known, defaults = known_settings(scheduler), scheduler.config.get("_use_default_values", ())
    # a saved scheduler no longer says what was a default
    chosen = SHIFTS - set(defaults) if shift is None or is_flow_matching(scheduler) else set[str]()
    shift = shift or given_shift(scheduler)
    return {
        key: shift or ...
        for key in SHIFTS & known.keys()
        if not (key in chosen and _is_shift(known[key])) and known[key] != shift
    }


def known_settings(scheduler: Any) -> dict[str, Any]:
    """Those of its config that its class has: `from_config` also keeps what the class before had, unused."""
    parameters = inspect.signature(type(scheduler).__init__).parameters
    return {name: value for name, value in scheduler.config.items() if name in parameters}


def is_flow_matching(scheduler: Any) -> bool:
    """Whether noisy latents are (1 - sigma) x0 + sigma noise, sigma in [0, 1] being `scheduler.sigmas`."""
    return hasattr(scheduler, "scale_noise") or bool(known_settings(scheduler).get("use_flow_sigmas"))


def check_flow_sigmas(scheduler: Any, shift: float | None = None) -> None:
    """Raises ValueError where a flow's scheduler has other noise levels, as a solver for DDPM may that was
    told to be one: where they rise beyond 1 it computes NaN, and where they end above 0 it leaves noise."""
    sigmas, name = scheduler.sigmas.cpu().double(), type(scheduler).__name__
    if ((sigmas >= 0) & (sigmas <= 1 + ABOVE_1)).all() and sigmas[-1] == 0:
        return
    known = known_settings(scheduler)
    other = {key: value for key, value in OTHER_SIGMAS.items() if known.get(key, value) != value}
    values = ", ".join(f"{key}={known[key]!r}" for key in other)
    line = flow_match_euler(scheduler, shift)
    if other:
        line = _from_config(name, other | _shift_to_give(scheduler, shift))
    raise ValueError(
        f"pipe.scheduler is a {name}{' with ' + values if other else ''}, whose noise levels go from "
        f"{sigmas[0]:.4g} to {sigmas[-1]:.4g}; a flow's fall from at most 1 to 0. Assign pipe.scheduler = "
        f"{line}"
    )
