"""One list of error codes, and any exception becomes one line."""

import errno

import pytest

from sora_cli.errors import EXIT_CODES, SoraError, as_sora_error
from sora_weights.errors import WeightsError


def test_exit_codes_are_those_of_the_contract() -> None:
    by_status = {status: {code for code in EXIT_CODES if EXIT_CODES[code] == status} for status in (1, 2, 130)}
    assert by_status[1] == {
        *("out_of_memory", "disk_full", "write_failed", "download_failed", "weights_changed", "internal")
    }
    assert by_status[130] == {"interrupted"}
    assert set(EXIT_CODES) == by_status[1] | by_status[2] | by_status[130]


def test_a_code_that_is_not_in_the_list_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no_such_code"):
        SoraError("no_such_code", "message")


def test_an_error_is_one_printable_line() -> None:
    error = SoraError("bad_input", "a\nfile\x1b[31m", "choose\tanother")
    assert str(error) == "a file [31m: choose another"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WeightsError("bad_weights", "vae.safetensors", "install again"), "bad_weights"),
        (OSError(errno.EDQUOT, "quota"), "disk_full"),
        (PermissionError(errno.EACCES, "Permission denied", "cat.mp4"), "write_failed"),
        (OSError(errno.EIO, "Input/output error"), "write_failed"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("anything"), "internal"),
        (ValueError(), "internal"),
    ],
)
def test_exceptions_of_others_have_a_code(error: Exception, code: str) -> None:
    told = as_sora_error(error)
    assert told.code == code
    assert told.hint


def test_a_device_out_of_memory_is_told_as_that() -> None:
    import torch

    assert as_sora_error(torch.OutOfMemoryError("CUDA out of memory.\nTried to")).code == "out_of_memory"
