"""The folders kernels/ and weights/ never become packages: transformers probes for one called kernels."""

import importlib.util
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
