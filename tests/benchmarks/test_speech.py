"""The measures of speech: a perfect detector is never wrong, and cuts by it fall into no word."""

import numpy as np

from benchmarks.speech import chords, in_words, level_db, mixed, worth
from stages.nn.voice import CHUNK, RATE
from tests.media import speak
from tests.stages.test_speech import within

SPANS = [(at, at + length) for at, length in zip(np.arange(1, 110, 3.5), [1.5, 2.5, 3.0] * 11, strict=False)]
VOICE = speak(SPANS, 120, RATE)[: 120 * RATE // CHUNK * CHUNK, 0]
TRUTH = within(SPANS, len(VOICE) // CHUNK)


def test_what_is_known_is_never_wrong_and_what_is_reversed_always() -> None:
    assert worth(lambda samples: TRUTH, VOICE, TRUTH) | {"ms": 0} == {
        "error": 0,
        "alarms": 0,
        "missed": 0,
        "ms": 0,
    }
    reversed_ = worth(lambda samples: ~TRUTH, VOICE, TRUTH)
    assert (reversed_["error"], reversed_["alarms"], reversed_["missed"]) == (1, 1, 1)


def test_the_other_sound_is_as_far_below_the_voice_as_asked() -> None:
    other = chords(len(VOICE))
    for ratio in (20, 0):
        both = mixed(VOICE, TRUTH, other, ratio)
        scale = both @ VOICE / (VOICE @ VOICE)
        rest = both / scale - VOICE
        heard = np.repeat(TRUTH, CHUNK)
        assert abs(20 * np.log10(np.std(VOICE[heard]) / np.std(rest)) - ratio) < 1.5
    assert abs(level_db(np.ones(CHUNK))[0]) < 1e-6


def test_cuts_by_what_is_known_fall_into_few_words() -> None:
    found = in_words(lambda samples: TRUTH, VOICE, TRUTH)
    assert found["moved"] < 0.1 < 0.5 < found["placed"]
