"""Settings files, and the folders that the tool keeps its own things in.

An option is looked up on the command line, then in its `SORA_*` variable (both in `options.py`),
then in `./sora.toml`, then in the user's `sora.toml`, then in the model's defaults.
"""

import os
from pathlib import Path
from typing import Any

from sora_cli.errors import SoraError

APP = "sora"

KEYS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "size": (str,),
    "seconds": (int, float, str),
    "frames": (int,),
    "fps": (int, float, str),
    "steps": (int,),
    "guidance": (int, float),
    "negative": (str,),
    "seed": (int,),
    "count": (int,),
    "device": (str,),
    "dtype": (str,),
    "memory": (int, str),
    "quiet": (bool,),
}


def files() -> tuple[Path, Path]:
    """Where settings are read from, the stronger first."""
    import platformdirs

    return Path("sora.toml"), platformdirs.user_config_path(APP, appauthor=False) / "sora.toml"


def load() -> dict[str, str | bool]:
    """Every setting as the text that its option takes; raises `bad_settings`."""
    local, user = (_read(path) for path in files())
    for one, other in (("seconds", "frames"), ("frames", "seconds")):
        if one in local:
            user.pop(other, None)
    return {**user, **local}


def _read(path: Path) -> dict[str, str | bool]:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SoraError("bad_settings", str(path), f"it can't be read ({error.strerror}); mend or move it") from error
    import tomllib

    try:
        table = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise SoraError("bad_settings", str(path), f"it is not TOML: {str(error)[:200]}") from error
    return {name: _checked(path, name, value) for name, value in table.items()}


def _checked(path: Path, name: str, value: Any) -> str | bool:
    if name not in KEYS:
        raise SoraError("bad_settings", f"{name[:40]} in {path}", f"it is not a setting; there are {', '.join(KEYS)}")
    if type(value) not in KEYS[name]:
        kinds = " or ".join(kind.__name__ for kind in KEYS[name])
        raise SoraError("bad_settings", f"{name} in {path}", f"its value is {kinds}, not {type(value).__name__}")
    return value if isinstance(value, bool) else str(value)


def home() -> Path | None:
    """The folder of SORA_HOME, which holds everything where it is set."""
    value = os.environ.get("SORA_HOME")
    return Path(os.path.expanduser(value)) if value else None


def folders() -> dict[str, Path]:
    """Where weights, jobs and caches live, by name; none of them needs to exist yet."""
    import platformdirs

    from sora_weights.store import weights_folder

    if (root := home()) is not None:
        return {"weights": weights_folder(), "jobs": root / "jobs", "cache": root / "cache"}
    return {
        "weights": weights_folder(),
        "jobs": platformdirs.user_state_path(APP, appauthor=False) / "jobs",
        "cache": platformdirs.user_cache_path(APP, appauthor=False),
    }
