"""How an output path is understood, without looking at the disk."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from sora_cli.errors import SoraError
from sora_cli.media.formats import FORMATS, check_limits, format_of, plan_output


@pytest.mark.parametrize(
    ("path", "frames", "kind", "name"),
    [
        ("cat.mp4", 48, "video", "mp4"),
        ("cat.MOV", 48, "video", "mov"),
        ("100%.webm", 48, "video", "webm"),
        ("cat.mkv", 1, "video", "mkv"),
        ("cat.gif", 48, "video", "gif"),
        ("cat.gif", 1, "image", "gif"),
        ("cat.webp", 48, "video", "webp"),
        ("cat.webp", 1, "image", "webp"),
        ("cat.png", 1, "image", "png"),
        ("cat.jpeg", 1, "image", "jpg"),
        ("frames/%04d.png", 48, "frames", "png"),
        ("frames/%d.jpg", 1, "frames", "jpg"),
        ("100%d/%%-%03d.webp", 3, "frames", "webp"),
    ],
)
def test_ending_and_pattern_choose_the_kind(path: str, frames: int, kind: str, name: str) -> None:
    plan = plan_output(path, frames)
    assert (plan.kind, plan.format.name, plan.path) == (kind, name, Path(path))


@pytest.mark.parametrize(
    ("path", "frames", "code"),
    [
        ("cat", 1, "unsupported_format"),
        ("cat.avi", 1, "unsupported_format"),
        (".mp4", 1, "unsupported_format"),
        ("cat.mp4.", 1, "unsupported_format"),
        ("out/", 1, "bad_usage"),
        ("..", 1, "bad_usage"),
        ("", 1, "bad_usage"),
        ("cat.png", 2, "bad_usage"),
        ("cat.jpg", 48, "bad_usage"),
        ("cat.mp4", 0, "bad_usage"),
        ("50%.png", 1, "bad_usage"),
        ("%s.png", 1, "bad_usage"),
        ("%4d.png", 1, "bad_usage"),
        ("%099d.png", 1, "bad_usage"),
        ("%d-%d.png", 1, "bad_usage"),
        ("%%d.png", 1, "bad_usage"),
        ("%(x)d.png", 1, "bad_usage"),
        ("%d%.png", 1, "bad_usage"),
        ("a\0b.mp4", 1, "bad_usage"),
        ("x" * 300 + ".mp4", 1, "bad_usage"),
    ],
)
def test_unusable_paths_are_refused(path: str, frames: int, code: str) -> None:
    with pytest.raises(SoraError) as refusal:
        plan_output(path, frames)
    assert refusal.value.code == code
    assert refusal.value.hint
    assert "\n" not in str(refusal.value)


def test_sequence_is_numbered_from_zero() -> None:
    files = [str(file) for file in plan_output("a%b/x-%03d%%.png", 3).files()]
    assert files == ["a%b/x-000%.png", "a%b/x-001%.png", "a%b/x-002%.png"]


def test_only_lossless_formats_claim_to_be() -> None:
    assert {ending for ending, form in FORMATS.items() if form.lossless} == {".mkv", ".png"}


@pytest.mark.parametrize(
    ("path", "width", "height", "fps"),
    [
        ("a.mp4", 15, 16, 24),
        ("a.webp", 16384, 16, 24),
        ("a.jpg", 16, 70000, 24),
        ("a.gif", 16, 16, 120),
        ("a.mkv", 16, 16, 1001),
    ],
)
def test_what_a_format_cannot_hold_is_refused(path: str, width: int, height: int, fps: int) -> None:
    with pytest.raises(SoraError) as refusal:
        check_limits(format_of(Path(path)), width, height, Fraction(fps))
    assert refusal.value.code == "unsupported_format"


@pytest.mark.parametrize("module", ["formats", "metadata", "probe", "writer", "source"])
def test_import_stays_light(module: str) -> None:
    heavy = {"torch", "av", "PIL", "numpy"}
    code = f"import sys, sora_cli.media.{module}; print({heavy} & set(sys.modules) or '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_paths(), check=True)
    assert done.stdout.strip() == ""


def _paths() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
