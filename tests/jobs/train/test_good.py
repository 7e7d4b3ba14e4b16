"""Good pictures: what is read and by which name it is known, what is held out, and how they are varied."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.train.good import FRAMES, HUE, apart, cut_in_two, on_paper, read, tinted, varied
from jobs.train.run import TrainingError
from tests.media import make_video


def write_photos(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i:02d}.png"), cv2.resize(small, (96, 72), interpolation=cv2.INTER_CUBIC))


def test_a_photo_is_known_by_the_hash_of_its_file_and_what_is_no_photo_is_left_out(tmp_path):
    write_photos(tmp_path / "photos", 3)
    (tmp_path / "photos" / "note.txt").write_text("no picture")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture either")
    found = read(str(tmp_path / "photos"), most=10)
    digests = [
        hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((tmp_path / "photos").glob("*.png"))
    ]
    assert [photo.sha256 for photo in found] == [digest[:16] for digest in digests]
    assert len(read(str(tmp_path / "photos"), most=2)) == 2


def test_a_folder_without_a_picture_says_so(tmp_path):
    (tmp_path / "note.txt").write_text("no picture")
    with pytest.raises(TrainingError, match="holds no pictures"):
        read(str(tmp_path), most=10)


def test_whole_videos_are_held_out_and_known_by_one_hash(tmp_path):
    for i in range(8):
        make_video(tmp_path / f"{i}.mp4", seconds=2)
    found = read(str(tmp_path), most=1000)
    learnt, settling, judging = apart(found)
    names = [{good.file for good in part} for part in (learnt, settling, judging)]
    assert names[1:] == [{str(tmp_path / "3.mp4")}, {str(tmp_path / "7.mp4")}]
    assert names[0] == {str(tmp_path / f"{i}.mp4") for i in (0, 1, 2, 4, 5, 6)}
    assert FRAMES / 2 < len(judging) <= FRAMES + 1
    assert {good.sha256 for good in judging} == {
        hashlib.sha256((tmp_path / "7.mp4").read_bytes()).hexdigest()[:16]
    }


def test_of_a_table_every_picture_counts_as_a_file(tmp_path):
    image = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    pq.write_table(pa.table({"image": [image] * 16}), tmp_path / "photos.parquet")
    found = read(str(tmp_path / "photos.parquet"), most=100)
    assert [len(part) for part in apart(found)] == [12, 2, 2]
    assert {good.sha256 for good in found} == {""}


def test_some_pictures_are_put_on_a_page_and_the_others_stay():
    torch.manual_seed(0)
    good = torch.rand(300, 3, 32, 32)
    seen = on_paper(good.clone())
    changed = (seen != good).flatten(1).any(1)
    assert 0.03 < changed.float().mean() < 0.25
    assert seen.min() >= 0
    assert seen.max() <= 1
    flat = (seen[changed].diff(dim=-1) == 0).float().mean((1, 2, 3))
    assert flat.min() > 0.4


def test_what_is_varied_stays_a_picture_and_changes_by_little():
    torch.manual_seed(0)
    good = 0.2 + 0.6 * torch.rand(100, 3, 24, 24)
    seen = tinted(good)
    assert 0.005 < (seen - good).abs().mean() < 0.06
    assert not torch.equal(varied(good.clone()), good)


def test_greys_stay_grey_and_hues_turn_by_no_more_than_they_may():
    torch.manual_seed(0)
    grey = torch.rand(20, 1, 8, 8).expand(-1, 3, -1, -1)
    assert np.ptp(tinted(grey).numpy(), axis=1).max() < 1e-5
    colour = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1).expand(50, 3, 4, 4)
    turned = tinted(colour)[:, :, 0, 0]
    chroma = turned - turned.mean(1, keepdim=True)
    angle = torch.atan2((chroma[:, 1] - chroma[:, 2]) * 3**0.5 / 2, chroma[:, 0] * 1.5)
    assert 0.3 * HUE < angle.abs().max() < 1.5 * HUE


def test_a_cut_picture_is_of_two():
    torch.manual_seed(0)
    values = torch.linspace(0, 1, 40).view(40, 1, 1, 1)
    seen = cut_in_two(values.expand(40, 3, 16, 16))
    tones = [len(picture.unique()) for picture in seen]
    assert set(tones) == {1, 2}
    assert 4 <= tones.count(2) <= 22
