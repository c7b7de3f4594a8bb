"""Which device and precision a job runs in."""

import torch

from sora_cli.errors import SoraError
from sora_cli.machine import FAST_FLAGS, cpu_flags

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> str:
    """The device asked for, or for "auto" the best there is. Raises SoraError("device_unavailable")."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise SoraError("device_unavailable", f"--device {name}: this machine has none", "use --device cpu or auto")
    return name


def choose_dtype(name: str, device: str) -> torch.dtype:
    """The precision asked for; "auto" is bfloat16 where the hardware multiplies it natively, float32 elsewhere."""
    if name != "auto":
        return DTYPES[name]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device == "cpu" and FAST_FLAGS["bfloat16"] & cpu_flags() else torch.float32
