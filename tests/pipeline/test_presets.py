"""Presets: those in the package are valid, on top of them comes everything else, mistakes name their file."""

from pathlib import Path

import pytest
import yaml

from pipeline import presets
from pipeline.config import GROUPS, ConfigError, Settings, load_settings
from stages.cut import target_seconds

FAR_S = 3600.0


@pytest.mark.parametrize("name", ["film", "ad", "social", "education"])
def test_every_use_has_a_preset_that_is_loud_enough_and_says_what_it_is_for(name: str) -> None:
    settings = load_settings(None, {"preset": name}, ())
    assert settings != Settings()
    assert (settings.render.loudness_lufs, settings.render.true_peak_dbtp) == (-16, -1)
    assert name in presets.names()
    assert len(presets.summary(name)) > 20
    tree = yaml.safe_load(presets.content(name))
    assert set(tree) <= set(GROUPS)  # no places, nothing of the machine
    assert not {"library", "limits", "pools", "run"} & set(tree)


def test_the_presets_are_what_their_uses_ask_for() -> None:
    film, ad, social, education = (
        load_settings(None, {"preset": name}, ()) for name in ("film", "ad", "social", "education")
    )
    assert "dissolve" in film.effects.transitions
    assert film.colour.kind == "lut"
    assert target_seconds(ad.cut.target, FAR_S) in (15, 30)
    assert ad.cut.max_clip_s < film.cut.min_clip_s + 1
    assert ad.effects.accents.clips
    assert ad.effects.strength > film.effects.strength
    assert target_seconds(social.cut.target, FAR_S) <= 60
    assert (education.effects.kind, education.colour.kind) == ("none", "none")


def test_a_copy_of_a_preset_is_one_by_its_path(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_bytes(presets.content("ad"))
    assert load_settings(None, {"preset": str(mine)}, ()) == load_settings(None, {"preset": "ad"}, ())


def test_a_list_is_replaced_as_a_whole_and_a_group_setting_by_setting() -> None:
    below = {"effects": {"transitions": ["whip", "zoom"], "accents": {"clips": 3, "length_s": 1}}}
    above = {"effects": {"transitions": ["blur"], "accents": {"clips": 0}}, "bundle": "b"}
    assert presets.beneath(below, above) == {
        "effects": {"transitions": ["blur"], "accents": {"clips": 0, "length_s": 1}},
        "bundle": "b",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cut: {targt: 20s}\n", r"mine\.yaml: cut\.targt: .*did you mean cut\.target"),
        ("source: s3://b/a\n", r"mine\.yaml: source: there is no such setting"),
        ("preset: film\n", r"mine\.yaml: preset: there is no such setting"),
        ("- cut\n", r"mine\.yaml"),
        ("cut: [\n", r"mine\.yaml"),
    ],
)
def test_a_mistake_in_a_preset_names_the_file(tmp_path: Path, text: str, words: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_settings(None, {"preset": str(mine)}, ())


@pytest.mark.parametrize("preset", ["holiday", "there/is/none.yaml", "../film", ""])
def test_an_unknown_preset_is_told_which_there_are(preset: str) -> None:
    with pytest.raises(ConfigError, match=r"there are ad, education, film, social, and the path of a YAML"):
        load_settings(None, {"preset": preset}, ())


def test_a_preset_is_a_name_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match="neither a name nor a path"):
        load_settings(None, {"preset": ["film"]}, ())
