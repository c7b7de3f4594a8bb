"""What can go wrong, in one list, and how any exception becomes one line.

`error.code` in the JSON and the exit status of the process both come from `EXIT_CODES`.
"""

import errno
import sys
from collections.abc import Mapping
from types import MappingProxyType

import typer

EXIT_CODES: Mapping[str, int] = MappingProxyType(
    {
        "bad_usage": 2,
        "bad_input": 2,
        "missing_input": 2,
        "unknown_model": 2,
        "output_exists": 2,
        "missing_folder": 2,
        "unsupported_format": 2,
        "device_unavailable": 2,
        "memory_too_small": 2,
        "not_available": 2,
        "bad_weights": 2,
        "bad_settings": 2,
        "interrupted": 130,
        "out_of_memory": 1,
        "disk_full": 1,
        "write_failed": 1,
        "download_failed": 1,
        "weights_changed": 1,
        "internal": 1,
    }
)

RESUME = "sora resume"
"""How a note on an exception begins that says how to go on."""

_WRITE_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENAMETOOLONG}


class SoraError(Exception):
    """An error that the user can act on: `message` names the value, `hint` the remedy.

    Raises ValueError when `code` is not in `EXIT_CODES`.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        if code not in EXIT_CODES:
            raise ValueError(f"{code!r} is not an error code")
        self.code = code
        self.message = one_line(message)
        self.hint = one_line(hint)
        super().__init__(f"{self.message}: {self.hint}" if self.hint else self.message)

    @property
    def exit_code(self) -> int:
        """The exit status of a process that ends with this error."""
        return EXIT_CODES[self.code]


def one_line(text: str) -> str:
    """`text` without line breaks or control characters, which a file name may hold."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def resume_hint(error: BaseException) -> str | None:
    """The command that goes on with the work that an error has stopped, if that was kept."""
    return next((note for note in getattr(error, "__notes__", ()) if note.startswith(RESUME)), None)


def explained(error: BaseException) -> SoraError:
    """The one line for `error`, and how to go on with the work that it has stopped, if that was kept."""
    told, resume = as_sora_error(error), resume_hint(error)
    if resume is None:
        return told
    hint = f"go on with {resume}" if told.code == "interrupted" else f"{told.hint}; then go on with {resume}"
    return SoraError(told.code, told.message, hint)


def as_sora_error(error: BaseException) -> SoraError:
    """The one line that stands for `error`, whatever raised it."""
    from sora_weights.errors import WeightsError

    match error:
        case SoraError():
            return error
        case WeightsError():
            return SoraError(error.code, error.message, error.hint)
        case typer.TyperException():
            return _usage_error(error)
        case KeyboardInterrupt():
            return SoraError("interrupted", "stopped before the end", "nothing was written")
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return SoraError(
                "disk_full", f"{error.filename or 'the disk'} is full", "free some space, or write elsewhere"
            )
        case OSError(errno=number) if number in _WRITE_ERRORS:
            place = error.filename or "the output"
            return SoraError("write_failed", f"{place}: {error.strerror}", "check the folder, or write elsewhere")
        case _ if is_out_of_memory(error):
            return SoraError(
                "out_of_memory",
                one_line(str(error))[:200] or "out of memory",
                "ask for a smaller --size or fewer --seconds, or set --memory",
            )
    what = one_line(f"{type(error).__name__} {error}")[:300]
    return SoraError("internal", f"unexpected {what}", "run again with --debug to see where")


def _usage_error(error: typer.TyperException) -> SoraError:
    """A refusal by the option parser, with the help page to read."""
    context = getattr(error, "ctx", None)
    page = context.command_path if context is not None else "sora"
    return SoraError("bad_usage", error.format_message().rstrip("."), f"see {page} --help")


def is_out_of_memory(error: BaseException) -> bool:
    """Python's, a device's or the CPU allocator's way to say that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
