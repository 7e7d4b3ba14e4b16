"""The demo library, a short one: drawn, playable, the same each time, made only once."""

from fractions import Fraction

import numpy as np
import pytest

from jobs import demo
from jobs.demo_scenes import SCENES
from jobs.demo_sound import SOUNDS
from stages.audio import RATE
from stages.container import open_source
from stages.failure import Failed
from stages.mastering import measure
from tests.media import presentation_times, read_pictures, read_samples

SHORT = demo.Film("a/short.mkv", Fraction(25), (("ball", 0.8, "music"), ("still_dunes", 0.8, "hush")))


def test_the_library_is_made_once_and_holds_a_broken_file(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "FILMS", (SHORT,))
    said = []
    film, broken = demo.render_demo_library(tmp_path, said.append)
    assert len(presentation_times(film)[0]) == 40
    assert len(read_samples(film)) == pytest.approx(1.6 * RATE, abs=2048)
    with pytest.raises(Failed), open_source(str(broken)):
        pass
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"short.mkv", broken.name}
    before = film.stat().st_mtime_ns
    demo.render_demo_library(tmp_path, said.append)
    assert film.stat().st_mtime_ns == before
    assert len(said) == 1


def test_a_film_is_the_same_each_time_and_its_shots_differ(tmp_path):
    for name in ("one.mkv", "two.mkv"):
        demo.render_film(SHORT, tmp_path / name, seed=3)
    one, two = (np.stack(read_pictures(tmp_path / name)) for name in ("one.mkv", "two.mkv"))
    assert np.array_equal(one, two)
    change = np.abs(np.diff(one.astype(int), axis=0)).mean((1, 2, 3))
    assert change.argmax() == 19  # the cut
    assert change[:19].mean() > 1.15 * change[20:].mean()  # balls move, dunes do not


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_paints_whole_pictures_at_any_time(scene):
    picture = SCENES[scene](np.random.default_rng(0))
    for seconds in (0.0, 2.5, 9.0):
        painted = picture(seconds)
        assert painted.shape == (360, 640, 3)
        assert painted.dtype == np.uint8
        assert painted.std() > 5


def test_sounds_have_their_characters():
    heard = {name: sound(4.0, np.random.default_rng(0)) for name, sound in SOUNDS.items()}
    loudness = {name: measure(iter([samples])).loudness_lufs for name, samples in heard.items()}
    assert all(samples.shape == (4 * RATE, 2) for samples in heard.values())
    assert loudness["hush"] < loudness["speech"] - 10
    assert min(loudness["speech"], loudness["music"], loudness["bangs"]) > -35
    # Speech comes in syllables: some four a second, with pauses.
    envelope = np.abs(heard["speech"][:, 0]).reshape(-1, RATE // 50).max(1)
    starts = np.flatnonzero(np.diff((envelope > 0.15 * envelope.max()).astype(int)) > 0)
    assert 8 <= len(starts) <= 32
