"""The folders kernels/ and weights/ never become packages: transformers probes for one called kernels."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["kernels", "weights"])
def test_folder_holds_a_package_and_is_none(name: str) -> None:
    assert not (ROOT / name / "__init__.py").exists()
    assert (ROOT / name / f"sora_{name}" / "__init__.py").is_file()


def test_kernels_is_not_found_as_a_package_of_ours() -> None:
    found = importlib.util.find_spec("kernels")
    assert found is None or found.origin is None or not Path(found.origin).is_relative_to(ROOT)


def test_kernels_import_no_triton() -> None:
    paths = [str(ROOT / "kernels")]
    code = f"import sys; sys.path[:0] = {paths}; import sora_kernels; print('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"
