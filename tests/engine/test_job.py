"""A job's folder: there while the work goes on, gone after it; latents come back as they were written."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from sora_cli.engine.job import LatentFile, open_job
from sora_cli.request import Request

REQUEST = Request("generate", "猫", "", "diorama", 32, 32, 5, Fraction(24), 2, 3.0, 0, "auto", "auto", None, False)


def test_latents_come_back_as_they_were_written(tmp_path: Path):
    file = LatentFile(tmp_path / "x.latents", 7, (3, 4, 5))
    latents = torch.randn(1, 3, 7, 4, 5)
    file.write(0, latents[:, :, :4])
    file.write(4, latents[:, :, 4:])
    assert torch.equal(file.read(0, 7), latents)
    assert torch.equal(file.read(2, 5), latents[:, :, 2:5])
    assert torch.equal(torch.stack(list(file), 2), latents)


def test_folder_goes_away_with_the_work_even_when_it_fails(own_home: Path):
    with pytest.raises(RuntimeError, match="broken"), open_job(REQUEST) as job:
        assert "\\u732b" in (job.folder / "request.json").read_text()
        job.latents("level0", 2, (1, 2, 2))
        raise RuntimeError("broken")
    assert not job.folder.exists()
