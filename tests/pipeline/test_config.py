"""Settings: a wrong key is an error that names it; the key of a run changes with what changes its result."""

from pathlib import Path

import pytest

from pipeline.config import ConfigError, Settings, load_settings
from stages.nn.weights import open_bundle


def test_file_flags_and_assignments_in_this_order(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("decode: {fps: 4, size: 128}\ncut: {target: 30s}\n")
    settings = load_settings(str(file), {"cut.target": "20s"}, ("decode.fps=1", "library.include=['*.mp4']"))
    assert (settings.decode.fps, settings.decode.size, settings.cut.target) == (1.0, 128, "20s")
    assert settings.library.include == ("*.mp4",)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("decode.fsp=4", "decode.fsp"),
        ("decode.fps=-1", "decode.fps"),
        ("decode.fps", "stage.setting=value"),
        ("=4", "stage.setting=value"),
        ("nonsense.fps=1", "nonsense"),
        ("cut.targt=20s", r"did you mean cut\.target\?"),
        ("cut.target=ten", "not a length"),
        ("bundle.x.y=1", "bundle"),
    ],
)
def test_mistakes_are_named(assignment: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_settings(None, {}, (assignment,))


@pytest.mark.parametrize("content", [b"decode: [", b"- decode", b"\xff\xfe\x00"])
def test_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_settings(str(file), {}, ())


def test_an_empty_group_or_file_leaves_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("# decode: {fps: 4}\n")
    assert load_settings(str(file), {}, ()) == Settings()
    file.write_text("cut:\n  # target: 30s\ndecode:\nbundle:\n")
    assert load_settings(str(file), {}, ()) == Settings()
    settings = load_settings(str(file), {"cut.target": "20s"}, ("decode.fps=4",))
    assert (settings.cut.target, settings.decode.fps, settings.bundle) == ("20s", 4.0, None)


def test_an_unknown_group_is_named_even_if_it_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("cutt:\n")
    with pytest.raises(ConfigError, match="cutt"):
        load_settings(str(file), {}, ())


def test_key_changes_with_what_changes_the_result_and_with_nothing_else(bundle: str) -> None:
    weights = open_bundle(bundle)
    key = Settings().key(weights)
    for same in (
        "library.limit=3",
        "limits.max_streams=9",
        "bundle=/elsewhere",
        "run.max_failed_share=0.1",
        "features.batch=8",
    ):
        assert load_settings(None, {}, (same,)).key(weights) == key
    for other in (
        "decode.fps=4",
        "cut.target=20s",
        "render.crf=30",
        "colour.strength=0.1",
        "saliency.enabled=false",
        "features.precision=bf16",
    ):
        assert load_settings(None, {}, (other,)).key(weights) != key
