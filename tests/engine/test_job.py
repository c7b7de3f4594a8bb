"""A job's folder: there until the result is, and no longer; latents come back as they were written."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from sora_cli.engine.job import Delivery, Job, LatentFile, new_job, stopped_jobs
from sora_cli.errors import SoraError
from sora_cli.request import Request
from sora_cli.settings import folders

REQUEST = Request("generate", "猫", "", "diorama", 32, 32, 5, Fraction(24), 2, 3.0, 0, "auto", "auto", None, False)


def test_latents_come_back_as_they_were_written(tmp_path: Path):
    file = LatentFile(tmp_path / "x.latents", 7, (3, 4, 5))
    latents = torch.randn(1, 3, 7, 4, 5)
    file.write(0, latents[:, :, :4])
    file.write(4, latents[:, :, 4:])
    assert torch.equal(file.read(0, 7), latents)
    assert torch.equal(file.read(2, 5), latents[:, :, 2:5])
    assert torch.equal(torch.stack(list(file), 2), latents)


DELIVERY = Delivery("out.mkv", force=False, embed_metadata=True)


def test_some_rows_of_latents_are_those_of_the_whole(tmp_path: Path):
    latents = torch.arange(2 * 3 * 5 * 4.0).view(1, 2, 3, 5, 4)
    file = LatentFile(tmp_path / "rows", 3, (2, 5, 4))
    file.write(0, latents)
    for rows in ((0, 5), (0, 1), (2, 4), (4, 5)):
        assert torch.equal(file.read(1, 3, rows), latents[:, :, 1:, slice(*rows)])


def test_folder_goes_away_with_the_work_and_when_it_is_refused(own_home: Path):
    with new_job(REQUEST, DELIVERY) as job:
        assert job.folder.is_dir()
    assert not job.folder.exists()
    with pytest.raises(SoraError), new_job(REQUEST, DELIVERY) as job:
        raise SoraError("bad_input", "no")
    assert not job.folder.exists()


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), OSError(28, "full")])
def test_what_was_stopped_is_kept_and_says_how_to_go_on(own_home: Path, error: BaseException):
    with pytest.raises(type(error)) as caught, new_job(REQUEST, DELIVERY) as job:
        job.latents("level0", 2, (1, 2, 2))
        raise error
    assert caught.value.__notes__ == [f"sora resume {job.name}"]
    assert job.name in [each.name for each in stopped_jobs()]
    assert job.request == REQUEST
    assert job.delivery.output == str(Path.cwd() / "out.mkv")
    with job.held(new=False):
        pass
    assert not job.folder.exists()


def test_two_processes_never_take_the_same_job(own_home: Path):
    with new_job(REQUEST, DELIVERY) as job:
        assert job.is_running()
        assert job.name not in [each.name for each in stopped_jobs()]
        with pytest.raises(SoraError, match="another process"), Job(job.folder).held(new=False):
            pass
    assert not job.folder.exists()


def test_latents_that_are_there_stay(tmp_path: Path):
    LatentFile(tmp_path / "x.latents", 2, (1, 2, 2)).write(0, torch.ones(1, 1, 2, 2, 2))
    assert LatentFile(tmp_path / "x.latents", 2, (1, 2, 2)).read(0, 2).sum() == 8


@pytest.mark.parametrize("name", ["clip", "mask"])
def test_sources_that_have_changed_are_refused(own_home: Path, tmp_path: Path, name: str):
    source = tmp_path / f"{name}.png"
    source.write_bytes(b"one")
    with pytest.raises(RuntimeError), new_job(replace(REQUEST, **{name: str(source)}), DELIVERY) as job:
        raise RuntimeError
    job.check()
    source.write_bytes(b"other")
    with pytest.raises(SoraError, match=rf"{name}\.png"):
        job.check()
    shutil.rmtree(job.folder)


def test_what_is_stopped_before_it_is_a_job_leaves_nothing(own_home: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(_file: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("sora_cli.engine.job.sha256_of", stop)
    with pytest.raises(KeyboardInterrupt) as caught, new_job(replace(REQUEST, clip=__file__), DELIVERY):
        pass
    assert not hasattr(caught.value, "__notes__")
    assert not any(folders()["jobs"].iterdir())


def test_a_job_of_another_version_is_refused(own_home: Path):
    with pytest.raises(RuntimeError), new_job(REQUEST, DELIVERY) as job:
        raise RuntimeError
    about = json.loads((job.folder / "job.json").read_text())
    about["delivery"]["surprise"] = 1
    (job.folder / "job.json").write_text(json.dumps(about))
    with pytest.raises(SoraError, match="another version"):
        _ = job.delivery
    shutil.rmtree(job.folder)
