"""What can be wrong with weights; the tool prints it as one line."""

CODES = frozenset({"bad_weights", "unknown_model", "bad_usage", "download_failed"})


class WeightsError(Exception):
    """Weights that can't be used: `message` names the file, key or value, `hint` the remedy.

    Raises ValueError when `code` is not in `CODES`.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        if code not in CODES:
            raise ValueError(f"{code!r} is not an error code of weights")
        self.code = code
        self.message = message
        self.hint = hint
        super().__init__(f"{message}: {hint}" if hint else message)


class MissingFileError(WeightsError):
    """Weights that can't be used only because files are not there."""
