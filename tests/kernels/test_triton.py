"""Triton's kernels, on a machine without a GPU: exact when interpreted, compiled for Hopper, absent until asked for."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted(path.stem for path in (HERE / "on_triton").glob("test_*.py"))
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: no kernel is tested")


def python(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the package on its path and whatever Triton keeps in `folder`."""
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "kernels", "weights"))
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": paths, "TRITON_CACHE_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def interpreted_failures(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[str]]:
    """The failures of each file in `on_triton`, all run in one process under interpretation."""
    folder = tmp_path_factory.mktemp("triton")
    report = folder / "report.xml"
    pytest_run = ("-m", "pytest", "-q", "tests/kernels/on_triton", "-p", "no:cacheprovider", f"--junitxml={report}")
    finished = python(*pytest_run, folder=folder, TRITON_INTERPRET="1")
    assert report.exists(), finished.stdout + finished.stderr
    failures: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        told = failures.setdefault(case.attrib["classname"].rpartition(".")[2], [])
        told += [f"{case.attrib['name']}: {found.text}" for found in case if found.tag != "system-out"]
    return failures


@needs_triton
@pytest.mark.parametrize("file", FILES)
def test_interpreted_kernels_pass_their_tests(file: str, interpreted_failures: Mapping[str, list[str]]) -> None:
    assert interpreted_failures[file] == []


@needs_triton
def test_every_kernel_compiles_for_hopper_and_products_use_its_tensor_cores(tmp_path: Path) -> None:
    finished = python(str(HERE / "compiling.py"), "90", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    kernels = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len(kernels) == 17
    with_products = {"_attention", "_attention_int8", "_causal_conv"}
    assert {each["kernel"] for each in kernels if each["tensor_cores"]} == with_products
    assert all(each["shared"] <= 227 * 1024 for each in kernels)


def test_nothing_imports_triton_until_it_is_used(tmp_path: Path) -> None:
    code = """
import sys, torch, sora_kernels
x = torch.ones(1, 2, 4, 8)
sora_kernels.rms_norm(x)
sora_kernels.attention(x, x, x)
sora_kernels.window_attention(x, x, x, (1, 2, 2), (0, 1, 1))
try:
    sora_kernels.rms_norm(x, backend="triton")
except sora_kernels.BackendError:
    print("triton" in sys.modules)
"""
    assert python("-c", code, folder=tmp_path).stdout.strip() == "False"
