"""Cutting sound to the sample, joining it without a bump, and bringing it to its level."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from stages.audio import RATE, assemble, pieces, read_samples
from stages.container import open_source
from stages.mastering import MasterSettings, encode_aac, master, measure
from stages.timeline import Slot
from tests.media import hear_beeps, make_video
from tests.media import read_samples as read_file

FPS = Fraction(25)


def slot(start_s, first, count, overlap=0):
    return Slot(0, start_s, start_s + count / 25, first, count, overlap, "mix" if overlap else "cut")


def level(samples):
    return measure(iter([samples.astype(np.float32)]))


def tone(seconds, gain=0.2, hz=997):
    wave = gain * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)
    return np.repeat(wave[:, None], 2, axis=1).astype(np.float32)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.webm"])
def test_a_span_is_read_to_the_sample_wherever_it_begins(tmp_path, name):
    facts = make_video(tmp_path / name, seconds=6)
    with open_source(facts.uri) as source:
        for start_s in (0.5, 1.99, 3.123):
            samples = read_samples(source, start_s, RATE * 2)
            assert samples.shape == (RATE * 2, 2)
            wanted = [t - start_s for t in facts.beeps_s if start_s < t < start_s + 2]
            assert hear_beeps(samples, RATE) == pytest.approx(wanted, abs=0.002)


def test_what_the_source_does_not_have_is_silence(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=2, audio="noise", audio_start_s=0.5)
    with open_source(facts.uri) as source:
        samples = read_samples(source, -0.5, RATE * 4)
    heard = np.abs(samples).max(1).reshape(-1, RATE // 10).max(1) > 0.02
    # 0.5 to 2.5 s of the source; AAC smears an edge by a block.
    assert heard[10:30].all()
    assert not heard[:9].any()
    assert not heard[31:].any()


def test_a_hard_cut_crossfades_with_what_lies_beyond_it():
    first, second = pieces([slot(0, 0, 25), slot(10, 25, 25)], FPS, 0.02)
    assert (first.at, first.count) == (0, RATE + 480)
    assert (second.at, second.count, second.start_s) == (RATE - 480, RATE + 480, 10 - 0.01)
    power = first.fade_out.rise()[::-1] ** 2 + second.fade_in.rise() ** 2
    assert power == pytest.approx(np.ones(960), abs=1e-5)


@pytest.mark.parametrize("lead_s", [0.2, -0.2])
def test_sound_that_leads_or_trails_is_cut_beside_the_picture_and_in_step_with_it(lead_s):
    beside = round(lead_s * RATE)
    first, second = pieces([slot(0, 0, 25), replace(slot(10, 25, 25), sound_lead_s=lead_s)], FPS, 0.02)
    assert (first.at, first.count, first.start_s) == (0, RATE - beside + 480, 0)
    assert (second.at, second.at + second.count) == (RATE - beside - 480, 2 * RATE)
    assert second.start_s == pytest.approx(10 - lead_s - 0.01)
    assert first.fade_out.samples == second.fade_in.samples == 960
    # What is heard at any moment of the second clip is what its picture shows then.
    assert second.start_s - second.at / RATE == pytest.approx(10 - 1)


def test_the_sound_of_the_next_clip_is_heard_over_the_end_of_a_picture(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=9)
    slots = [slot(0.4, 0, 50), replace(slot(5.3, 50, 50), sound_lead_s=0.5)]
    reel = np.asarray(assemble(facts.uri, slots, FPS, 0.02, tmp_path / "s.f32"))
    assert len(reel) == 4 * RATE
    # The beep at 2.0 s of the source would be at 1.6 s: the first clip is silent from 1.5 s on.
    assert hear_beeps(reel, RATE) == pytest.approx([0.6, 1.7, 2.7, 3.7], abs=0.002)


def test_clips_of_a_reel_that_begins_with_the_best_keep_their_sound(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=9)
    slots = [slot(6.3, 0, 25), slot(2.3, 25, 25), slot(4.3, 50, 25)]
    reel = np.asarray(assemble(facts.uri, slots, FPS, 0.02, tmp_path / "s.f32"))
    assert hear_beeps(reel, RATE) == pytest.approx([0.7, 1.7, 2.7], abs=0.002)


def test_a_transition_crossfades_over_all_of_its_frames():
    first, second = pieces([slot(0, 0, 25), slot(10, 20, 25, overlap=5)], FPS, 0.02)
    assert first.fade_out.samples == second.fade_in.samples == RATE // 5
    assert (first.count, second.at) == (RATE, RATE * 20 // 25)


def test_sound_that_goes_on_over_a_cut_does_not_swell(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=4, audio=tone(4))
    slots = [slot(0.4, 0, 30), slot(1.6, 30, 30)]
    reel = assemble(facts.uri, slots, FPS, 0.1, tmp_path / "s.f32")
    inside = np.asarray(reel[RATE // 10 : -RATE // 10, 0])
    peaks = np.abs(inside[: len(inside) // 960 * 960]).reshape(-1, 960).max(1)
    assert peaks == pytest.approx(np.full(len(peaks), 0.2), abs=0.01)


def test_sound_of_another_video_is_crossfaded_whatever_its_times_say():
    slots = [replace(slot(0.4, 0, 30), video_id="a"), replace(slot(1.6, 30, 30), video_id="b")]
    same = [replace(one, video_id="a") for one in slots]
    for kind, linear in ((slots, False), (same, True)):
        first, second = pieces(kind, FPS, 0.1)
        assert [first.fade_out.linear, second.fade_in.linear] == [linear, linear]


def test_sound_is_brought_to_its_level_and_stays_there_after_coding(tmp_path):
    rng = np.random.default_rng(0)
    speechlike = 0.02 * rng.standard_normal((RATE * 4, 2)) * (np.arange(RATE * 4) // 9600 % 3 > 0)[:, None]
    speechlike[::5000] *= 8  # peaks that gain alone would drive over the top
    for samples in (speechlike.astype(np.float32), tone(3, 0.9), tone(3, 0.01)):
        path = tmp_path / "m.m4a"
        reported = master(samples, path, MasterSettings())
        assert reported.loudness_lufs == pytest.approx(-16, abs=0.5)
        assert reported.true_peak_dbtp < -1


def test_peaks_win_over_loudness(tmp_path):
    clicks = np.zeros((RATE * 2, 2), np.float32)
    clicks[::4800] = 0.9
    reported = master(clicks, tmp_path / "m.m4a", MasterSettings())
    assert reported.true_peak_dbtp < -1
    assert reported.loudness_lufs < -17


@pytest.mark.parametrize("gain", [0.0, 0.0002])
def test_near_silence_is_not_boosted(tmp_path, gain):
    reported = master(tone(3, gain), tmp_path / "m.m4a", MasterSettings())
    assert reported.loudness_lufs < -60


def test_loudness_is_measured_as_the_standard_says(tmp_path):
    # EBU Tech 3341, test 1: a stereo 1 kHz sine at -23 dBFS reads -23 LUFS.
    found = level(tone(20, 10 ** (-23 / 20), 1000))
    assert found.loudness_lufs == pytest.approx(-23, abs=0.1)
    assert found.true_peak_dbtp == pytest.approx(-23, abs=0.2)


def test_aac_adds_no_delay(tmp_path):
    facts = make_video(tmp_path / "a.mp4", seconds=2)
    with open_source(facts.uri) as source:
        samples = read_samples(source, 0.0, RATE * 2)
    encode_aac(iter([samples]), tmp_path / "m.m4a", 192_000)
    decoded = read_file(tmp_path / "m.m4a")
    assert hear_beeps(decoded, RATE) == pytest.approx([0.0, 1.0], abs=0.002)
