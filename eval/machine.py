"""What numbers were measured with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "torchmetrics", "triton")


def machine(device: torch.device) -> dict[str, Any]:
    """Python, packages and the device; of a CPU its kind, cores and threads."""
    described: dict[str, Any] = {"python": platform.python_version(), "device": device.type}
    for package in PACKAGES:
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            continue
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return described | {
            "device": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return described | {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
