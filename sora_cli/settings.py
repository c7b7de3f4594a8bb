"""Settings files, and the folders that the tool keeps its own things in.

An option is looked up on the command line, then in its `SORA_*` variable (both in `options.py`),
then in `./sora.toml`, then in the user's `sora.toml`, then in the model's defaults.
"""

import json
import os
import re
import shutil
from contextlib import suppress
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


_STRING = r"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'"  # of TOML, on one line


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


def source_of(name: str) -> tuple[str, str] | None:
    """A setting's value and what says so, its variable or the path of a file; None where nothing does.

    Raises SoraError("bad_settings").
    """
    variable = f"SORA_{name.upper()}"
    if value := os.environ.get(variable):
        return value, variable
    for path in files():
        if (found := _read(path).get(name)) is not None:
            return str(found), str(path)
    return None


def keep(name: str, value: str) -> Path:
    """Put a setting into the user's file, whose other lines stay as they are, and return its path.

    Raises SoraError("bad_settings") for a file that can't be read as settings or in which no line could be changed.
    """
    path = files()[1].resolve()  # the file itself, where a link leads to it
    _read(path)
    try:
        before = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        before = ""
    _replace(path, _with(path, before, name, value))
    return path


def _with(path: Path, text: str, name: str, value: str) -> str:
    """The settings `text` in which `name` is `value`: in the line where it stands, else in a new last one."""
    import tomllib

    quoted = json.dumps(value, ensure_ascii=False)
    wanted = {**tomllib.loads(text), name: value}
    key = rf"(?:{name}|\"{name}\"|'{name}')"
    line = re.compile(rf"^([ \t]*{key}[ \t]*=[ \t]*)(?:{_STRING})", re.MULTILINE)
    changed = [text[: found.end(1)] + quoted + text[found.end() :] for found in line.finditer(text)]
    last = text if not text or text.endswith("\n") else f"{text}\n"
    for each in (*changed, f"{last}{name} = {quoted}\n"):
        with suppress(tomllib.TOMLDecodeError):
            if tomllib.loads(each) == wanted:
                return each
    remedy = f"its line can't be changed safely; write {name} = {quoted} there"
    raise SoraError("bad_settings", f"{name} in {path}", remedy)


def _replace(path: Path, text: str) -> None:
    """Write a file anew, whole or not at all, with the permissions that it had. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(text.encode())
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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
