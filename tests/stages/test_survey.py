"""The first look: upright, and in the light in which the reel shows it."""

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stages.container import open_source
from stages.cutter import read_span
from stages.picture import Look
from stages.probe import describe
from stages.survey import survey
from stages.tonemap import write_tone_map
from tests.media import make_video, read_counter

PQ_TAGS = "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited"


def test_what_the_framing_sees_is_tone_mapped_as_what_the_grade_sees(tmp_path: Path) -> None:
    deep = {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": PQ_TAGS}}
    facts = make_video(tmp_path / "hdr.mp4", seconds=1, audio=None, **deep)
    write_tone_map(9, 16, tmp_path / "map.cube")
    look = Look(160, 90, tone_map=tmp_path / "map.cube")
    with closing(read_span(facts.uri, (0.0, 1.0), 25, Fraction(25), Fraction(25))) as frames:
        seen = survey(frames, [5, 12], [5, 12], look, (192, 96))
    assert seen.upright.shape == (2, 96, 192, 3)
    means = [pictures.mean((1, 2)) for pictures in (seen.small, seen.upright)]
    assert np.abs(means[0] - means[1]).max() < 3


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pictures_are_upright_and_those_that_were_asked_for(tmp_path: Path, rotation: int) -> None:
    facts = make_video(tmp_path / "v.mp4", size=(320, 192), rotation=rotation, seconds=1, audio=None)
    with open_source(facts.uri) as source:
        look = Look(facts.width, facts.height, describe(source)["rotation"])
    with closing(read_span(facts.uri, (0.0, 1.0), 25, Fraction(25), Fraction(25))) as frames:
        seen = survey(frames, [], [3, 4, 17], look, (facts.width, facts.height))
    assert [read_counter(picture) for picture in seen.upright] == [3, 4, 17]
    assert len(seen.small) == 0
