"""What this machine can run, found by trying it."""

import ctypes
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli import __version__, settings

if TYPE_CHECKING:
    import torch

FAST_FLAGS: Mapping[str, frozenset[str]] = {
    "bfloat16": frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "svebf16"}),
    "float16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp", "fphp"}),
}

ENCODERS: Mapping[str, str] = {
    ".mp4 .mov": "libx264",
    ".webm": "libvpx-vp9",
    ".mkv": "ffv1",
    ".gif": "gif",
}
PICTURES: Mapping[str, str] = {".png": "zlib", ".jpg": "jpg", ".webp": "webp"}


def facts() -> dict[str, Any]:
    """Everything that `sora doctor` tells, as plain JSON values; sizes in bytes."""
    import torch

    from sora_weights import registry

    return {
        "sora": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "cpu_count": usable_cpus(),
        "memory_free_bytes": free_memory(),
        "disk_free_bytes": shutil.disk_usage(".").free,
        "devices": devices(),
        "encoders": encoders(),
        "models": [model.name for model in registry.list_models()],
        "broken_models": [str(error) for error in registry.broken_models()],
        "folders": {name: str(path) for name, path in settings.folders().items()},
        "settings": [str(path) for path in settings.files() if path.exists()],
    }


def usable_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int | None:
    """Bytes that can still be taken, within a container's limit; None where the system doesn't tell."""
    available = re.search(r"MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"))
    limit, used = _text("/sys/fs/cgroup/memory.max").strip(), _text("/sys/fs/cgroup/memory.current").strip()
    amounts = [int(available[1]) * 1024] if available else []
    if limit.isdigit() and used.isdigit():
        amounts.append(max(0, int(limit) - int(used)))
    return min(amounts, default=None)


def cpu_flags() -> frozenset[str]:
    """The processor's feature flags as Linux names them, less those that only slow it down; empty elsewhere.

    Intel's cores multiply bfloat16 fast in AMX alone: with avx512_bf16 a Xeon did 74 GFLOP/s, in float32 112.
    """
    facts = _text("/proc/cpuinfo")
    lines = re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", facts, re.MULTILINE)
    flags = frozenset(lines[0].split()) if lines else frozenset()
    return flags - {"avx512_bf16"} if "GenuineIntel" in facts else flags


def devices() -> list[dict[str, Any]]:
    """Each device that torch can use, with what each dtype does there.

    A dtype "works" when a small product and a convolution come out right, and is "fast" when the
    processor has instructions for it (on a GPU: when it works).
    """
    import torch

    found = [_device("cpu", platform.processor() or platform.machine(), free_memory())]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, _ = torch.cuda.mem_get_info(index)
        found.append(_device(f"cuda:{index}", torch.cuda.get_device_name(index), free))
    if torch.backends.mps.is_available():
        found.append(_device("mps", "Apple GPU", None))
    return found


def _device(name: str, model: str, free: int | None) -> dict[str, Any]:
    import torch

    dtypes = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
    support = {label: _support(name, label, dtype) for label, dtype in dtypes.items()}
    return {"name": name, "model": model, "memory_free_bytes": free, "dtypes": support}


def _support(device: str, label: str, dtype: "torch.dtype") -> dict[str, bool]:
    works = _computes(device, dtype)
    native = device != "cpu" or label not in FAST_FLAGS or bool(FAST_FLAGS[label] & cpu_flags())
    return {"works": works, "fast": works and native}


def _computes(device: str, dtype: "torch.dtype") -> bool:
    """Whether a matrix product and a convolution of ones come out right."""
    import torch

    try:
        ones = torch.ones(1, 16, 16, 16, device=device, dtype=dtype)
        kernel = torch.ones(16, 16, 1, 1, device=device, dtype=dtype)
        product = ones @ ones
        convolved = torch.nn.functional.conv2d(ones, kernel)
        return bool((product == 16).all()) and bool((convolved == 16).all())
    except (RuntimeError, TypeError):
        return False


def encoders() -> dict[str, bool]:
    """Which kinds of output can be written here, by ending: clips with PyAV, pictures with Pillow."""
    import av
    from PIL import features

    def there(name: str) -> bool:
        try:
            av.Codec(name, "w")
        except ValueError:
            return False
        return True

    clips = {endings: there(name) for endings, name in ENCODERS.items()}
    return clips | {ending: bool(features.check(name)) for ending, name in PICTURES.items()}


def size_text(size: int | None) -> str:
    """Bytes for people: 3.2 GiB."""
    if size is None:
        return "unknown"
    power = min(3, max(0, (size.bit_length() - 1) // 10))
    return f"{size / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def give_back_memory() -> None:
    """Return to the system what is free but kept for later by the C library, where that can be asked to: glibc's.

    Between the stages of a job that is what the last one needed and the next one does not. It takes milliseconds.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def forget_peak_memory() -> None:
    """Count the highest memory of process and GPU anew from here, where the system can: Linux (proc(5), clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
