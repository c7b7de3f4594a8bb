"""Which device and precision a job runs in."""

from dataclasses import dataclass

import torch

from sora_cli.errors import SoraError
from sora_cli.machine import FAST_FLAGS, cpu_flags
from sora_weights.reader import open_weights
from sora_weights.spec import Model, PatchVAESpec, WanVAESpec

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, slots=True)
class Precision:
    """What the networks of a job compute in; None leaves the text encoder's weights as they are stored."""

    denoiser: torch.dtype
    autoencoder: torch.dtype
    text: torch.dtype | None


def choose_device(name: str) -> str:
    """The device asked for, or for "auto" the best there is. Raises SoraError("device_unavailable")."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise SoraError("device_unavailable", f"--device {name}: this machine has none", "use --device cpu or auto")
    return name


def choose_precision(name: str, device: str, model: Model) -> Precision:
    """The precision asked for; "auto" is what the hardware multiplies natively.

    On a CPU "auto" keeps a published model in the precision that it is stored in, so that its reference's frames come
    out. Wan's autoencoder always runs in float32, as its reference runs it.
    """
    if isinstance(model.specs.vae, PatchVAESpec):
        dtype = DTYPES.get(name) or native_dtype(device)
        return Precision(dtype, dtype, None)
    stored = stored_dtype(model)
    native = native_dtype(device)
    auto = native if device != "cpu" or stored == native else torch.float32
    dtype = DTYPES.get(name, auto)
    text = DTYPES.get(name) if device == "cpu" else dtype
    return Precision(dtype, torch.float32 if isinstance(model.specs.vae, WanVAESpec) else dtype, text)


def native_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively; else float16 on a GPU, float32 elsewhere."""
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device == "cpu" and FAST_FLAGS["bfloat16"] & cpu_flags() else torch.float32


def stored_dtype(model: Model) -> torch.dtype:
    """The precision of most of the denoiser's weights on disk."""
    entries = open_weights(model.parts["dit"]).entries.values()
    kinds = [entry.dtype for entry in entries if entry.dtype in STORED]
    return STORED[max(set(kinds), key=kinds.count)] if kinds else torch.float32
