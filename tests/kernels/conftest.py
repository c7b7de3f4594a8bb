"""Puts what the kernels' tests share on their path, and says where the tests of Triton's kernels run.

Those in `on_triton` run by themselves where a GPU compiles kernels, or under TRITON_INTERPRET=1. Without either
`test_triton.py` runs them interpreted in a process of their own: a process that has imported Triton can't turn to
interpretation any more, and other tests' libraries import it.
"""

import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "on_triton")]

from sora_kernels.refusals import interpreted  # noqa: E402

collect_ignore = [] if interpreted() or torch.cuda.is_available() else ["on_triton"]
