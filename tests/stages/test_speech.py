"""Where somebody speaks: found in the sound, by the same steps however the video is divided."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stages.decode import DecodeSettings
from stages.hearing import Hearing
from stages.nn import voice
from stages.nn.voice import RATE, STEP_S
from stages.speech import VoiceActivity, step_at
from tests.media import Shot, make_video, speak, synthesise
from tests.stages.test_decode import whole

SPOKEN = [(1.0, 3.0), (4.5, 6.0), (7.0, 13.5), (14.5, 15.5), (17.0, 19.0)]


def within(spans: list[tuple[float, float]], steps: int) -> np.ndarray:
    """Whether the middle of each step lies in a span."""
    middles = (np.arange(steps) + 0.5) * STEP_S
    return np.any([(middles > start) & (middles < end) for start, end in spans], axis=0)


def heard(samples: np.ndarray, but: range = range(0)) -> np.ndarray:
    """Probabilities of samples f32[n] from 0 s on, those of `but` left out."""
    activity = VoiceActivity(0.0, 60.0)
    for at in range(0, len(samples), 1000):
        if at not in but:
            activity.add(frame_of(samples, at), at / RATE)
    activity.flush()
    return activity.steps()


def frame_of(samples: np.ndarray, at: int) -> av.AudioFrame:
    block = np.ascontiguousarray(samples[None, at : at + 1000])
    frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), at
    return frame


def test_the_network_is_what_torch_makes_of_its_weights() -> None:
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(voice.CONTEXT + 40 * voice.CHUNK)).astype(np.float32)
    w = {name: torch.from_numpy(value) for name, value in voice._weights().items()}
    hidden = cell = torch.zeros(1, voice.WIDTH)
    wanted = []
    for step in range(40):
        chunk = torch.from_numpy(samples[step * voice.CHUNK :][: voice.CONTEXT + voice.CHUNK])
        x = F.conv1d(F.pad(chunk[None], (0, 64), mode="reflect")[:, None], w["stft_conv.weight"], stride=128)
        x = torch.sqrt(x[:, :129] ** 2 + x[:, 129:] ** 2)
        for number, stride in enumerate((1, 2, 2, 1), 1):
            weights = (w[f"conv{number}.weight"], w[f"conv{number}.bias"])
            x = F.relu(F.conv1d(x, *weights, stride=stride, padding=1))
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        hidden, cell = torch.lstm_cell(x[:, :, 0], (hidden, cell), *(w[f"lstm_cell.{n}"] for n in names))
        last = F.conv1d(F.relu(hidden)[..., None], w["final_conv.weight"], w["final_conv.bias"])
        wanted.append(float(torch.sigmoid(last)))
    assert voice.listen(voice.encode(samples)[None])[0] == pytest.approx(wanted, abs=1e-5)


def test_speech_is_found_where_it_is_in_a_file(tmp_path: Path) -> None:
    facts = make_video(tmp_path / "a.mp4", seconds=20, audio=speak(SPOKEN, 20))
    speech = whole(facts.path)["speech"]
    assert len(speech) == pytest.approx(step_at(20.0), abs=2)
    truth = within(SPOKEN, len(speech))
    assert np.mean(speech[truth] > 0.5) > 0.95
    # A little of what follows a word still sounds like it.
    quiet = ~within([(start - 0.04, end + 0.2) for start, end in SPOKEN], len(speech))
    assert np.mean(speech[quiet] > 0.5) < 0.02


def test_shards_hear_what_one_pass_hears(tmp_path: Path) -> None:
    facts = make_video(tmp_path / "a.mp4", seconds=20, audio=speak(SPOKEN, 20), gop=37)
    shards, alone = (
        whole(facts.path, DecodeSettings(shard_seconds=seconds))["speech"] for seconds in (4.0, 60.0)
    )
    assert len(shards) == len(alone)
    assert np.abs(shards - alone).max() < 0.2  # resampling begins at another sample
    assert np.mean((shards > 0.5) != (alone > 0.5)) < 0.005


def test_beeps_noise_and_silence_are_no_speech() -> None:
    for kind in ("beeps", "noise", "silence"):
        samples = synthesise(kind, 20, np.arange(20.0), RATE, 1)[:, 0]
        assert np.mean(heard(samples) > 0.35) < 0.02, kind


def test_a_step_depends_on_the_sound_before_it_only() -> None:
    samples = speak(SPOKEN, 20, RATE)[:, 0]
    early = heard(samples[: 10 * RATE])
    assert heard(samples)[: len(early)] == pytest.approx(early, abs=1e-3)


def test_speech_stays_in_its_place_behind_a_hole_in_the_sound() -> None:
    samples = speak(SPOKEN, 20, RATE)[:, 0]
    speech = heard(samples, but=range(4 * RATE, 14 * RATE))
    assert speech[step_at(4.3) : step_at(13.9)].max() < 0.1
    truth = within([span for span in SPOKEN if span[0] > 14], len(speech))
    assert np.mean(speech[truth] > 0.5) > 0.95


def test_a_short_hole_takes_nothing_from_what_was_heard_before_it() -> None:
    samples = speak(SPOKEN, 20, RATE)[:, 0]
    hole = range(round(10.9 * RATE), 11 * RATE)  # in the middle of a window
    speech, whole_speech = heard(samples, but=hole), heard(samples)
    before = slice(step_at(7.2), step_at(10.8))
    assert speech[before] == pytest.approx(whole_speech[before], abs=1e-3)


def test_blocks_of_a_second_hear_what_frames_do() -> None:
    samples = speak(SPOKEN, 20, RATE)[:, 0]
    holes = (range(4 * RATE, 5 * RATE), range(round(10.9 * RATE), 11 * RATE))
    hearing, voice = Hearing(2.0, 18.0), VoiceActivity(2.0, 18.0)
    for at in range(0, len(samples), 1000):
        if not any(at in hole for hole in holes):
            for listener in (hearing, voice):
                listener.add(frame_of(samples, at), at / RATE)
    hearing.flush()
    voice.flush()
    assert hearing.voice.steps() == pytest.approx(voice.steps(), abs=1e-3)


def test_damaged_samples_do_not_deafen_it() -> None:
    samples = speak(SPOKEN, 20, RATE)[:, 0]
    samples[RATE // 2 : RATE // 2 + 100] = np.nan
    samples[RATE // 2 + 100 : RATE // 2 + 200] = np.inf
    speech = heard(samples)
    assert np.isfinite(speech).all()
    assert np.mean(speech[within(SPOKEN, len(speech))] > 0.5) > 0.95


def test_silent_video_has_no_speech(tmp_path: Path) -> None:
    facts = make_video(tmp_path / "a.mp4", shots=[Shot(3.0)], audio=None)
    assert len(whole(facts.path)["speech"]) == 0
