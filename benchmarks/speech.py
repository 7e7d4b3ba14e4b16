"""How well speech is found, and what that costs, beside WebRTC's detector and plain measures of sound.

    python -m benchmarks.speech [--music FILE ...] [--json FILE]

Spoken by espeak-ng (which must be installed) in five languages and voices with pauses of known length, under
noise and music. What is speech is known from the clean voice: steps within 40 dB of its usual level; gaps of
less than 0.15 s are those within a word.

error   share of the 32 ms steps that are judged wrongly
missed  of the steps with speech; alarms: of those without
ms      of CPU per second of sound, on one core
cuts    share of the ends of clips of 2 to 6 s, placed anywhere, that fall into a word: as they are, and moved
        into pauses as stages/cut.py does it, the sum of their lengths unchanged

--music takes videos or sound files without speech; without any, chords and drums are made up. webrtc needs
`pip install webrtcvad-wheels`, which nothing else here does.
"""

import importlib.util
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
from scipy import ndimage, signal

from stages.audio import read_samples
from stages.container import open_source
from stages.cut import CutSettings
from stages.nn.voice import CHUNK, CONTEXT, RATE, STEP_S, encode, listen
from stages.pauses import edges_of
from stages.spans import settle
from stages.speech import VoiceActivity

SPEAKERS = {
    "en-us+m3": "The camera moves slowly to the left. Nobody has seen this valley in winter. What a day!",
    "en-gb+f2": "We start with the second example. It is short, and it does exactly what the first one did.",
    "de+m1": "Am Morgen war das Meer ganz ruhig. Erst gegen Mittag kam der Wind, und mit ihm die Wellen.",
    "fr-fr+f4": "Il a ouvert la porte sans rien dire. Puis il est parti, et personne ne l'a jamais revu.",
    "es+m5": "La segunda parte es más difícil. Hay que mirar dos veces antes de cruzar la calle.",
}
PAUSES_S = (0.3, 0.6, 1.0, 2.0)
RATIOS_DB = (20, 10, 5, 0)
BELOW_DB = 40
IN_WORD_S = 0.15
# Of the plain measures: how far above the quietest tenth of 10 s sound counts as speech.
ABOVE_DB = 9

CLIPS, RUNS = 8, 10

Detect = Callable[[np.ndarray], np.ndarray]  # f32[n] mono at 16 kHz -> bool[n // CHUNK]


@click.command(help=__doc__.splitlines()[0])
@click.option("--music", multiple=True, type=click.Path(exists=True, dir_okay=False), help="Without speech.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(music: tuple[str, ...], json_file: Path | None) -> None:
    voice, truth = spoken()
    others = {"noise": pink(len(voice))}
    others["music"] = np.concatenate([read(file) for file in music]) if music else chords(len(voice))
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, detect in methods().items():
        result[name] = {"clean": worth(detect, voice, truth)}
        for kind, other in others.items():
            for ratio in RATIOS_DB:
                result[name][f"{kind} {ratio} dB"] = worth(detect, mixed(voice, truth, other, ratio), truth)
            alone = 0.1 * other / max(float(np.std(other)), 1e-9)
            result[name][f"{kind} alone"] = worth(detect, alone, np.zeros(len(alone) // CHUNK, bool))
        for condition, found in result[name].items():
            print(name, condition, json.dumps(found), flush=True)
        result[name]["cuts"] = in_words(detect, mixed(voice, truth, others["music"], 10), truth)
        print(name, "cuts under music 10 dB", json.dumps(result[name]["cuts"]), flush=True)
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")


def methods() -> dict[str, Detect]:
    found = {
        "voice net": lambda samples: product(samples) > 0.5,
        "voice net without windows": lambda samples: (
            listen(encode(np.pad(samples, (CONTEXT, 0)))[None])[0][: len(samples) // CHUNK] > 0.5
        ),
        "energy 300 to 3400 Hz": energy,
        "modulation about 4 Hz": modulation,
    }
    if importlib.util.find_spec("webrtcvad"):
        found["webrtc"] = webrtc
    return found


def product(samples: np.ndarray) -> np.ndarray:
    """Probabilities as decoding finds them."""
    voice = VoiceActivity(0.0, len(samples) / RATE)
    for at in range(0, len(samples), 1024):
        block = np.ascontiguousarray(samples[None, at : at + 1024], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), at
        voice.add(frame, at / RATE)
    voice.flush()
    return voice.steps()[: len(samples) // CHUNK]


def energy(samples: np.ndarray) -> np.ndarray:
    """The level of the telephone band against the quietest tenth of the ten seconds around."""
    band = signal.sosfilt(signal.butter(4, (300, 3400), "bandpass", fs=RATE, output="sos"), samples)
    levels = level_db(band)
    floor = ndimage.percentile_filter(levels, 10, size=round(10 / STEP_S))
    return ndimage.binary_closing(levels > floor + ABOVE_DB, np.ones(5), border_value=0)


def modulation(samples: np.ndarray) -> np.ndarray:
    """How much the level of the telephone band swings 3 to 6 times a second, as syllables do."""
    band = signal.sosfilt(signal.butter(4, (300, 3400), "bandpass", fs=RATE, output="sos"), samples)
    levels = level_db(band)
    filter_ = signal.butter(2, (3, 6), "bandpass", fs=1 / STEP_S, output="sos")
    swing = np.sqrt(ndimage.uniform_filter1d(signal.sosfiltfilt(filter_, levels) ** 2, round(0.5 / STEP_S)))
    return (swing > 3) & energy(samples)


def webrtc(samples: np.ndarray) -> np.ndarray:
    vad = importlib.import_module("webrtcvad").Vad(3)
    data, size = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes(), RATE // 100 * 2
    said = [vad.is_speech(data[at : at + size], RATE) for at in range(0, len(data) - size + 1, size)]
    steps = (np.arange(len(samples) // CHUNK) + 0.5) * STEP_S
    return np.array(said)[np.minimum((steps * 100).astype(int), len(said) - 1)]


def in_words(detect: Detect, samples: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    edges = edges_of(detect(samples).astype(np.float32), np.empty(0), CutSettings().breath_s)
    rng, length_s = np.random.default_rng(3), len(truth) * STEP_S
    before, after = [], []
    for _ in range(RUNS):
        parts = np.linspace(0, length_s, CLIPS + 1)
        bounds = np.stack([parts[:-1], parts[1:]], axis=1)
        starts = bounds[:, 0] + rng.uniform(0.5, 4, CLIPS)
        spans = np.stack([starts, np.minimum(starts + rng.uniform(2, 6, CLIPS), bounds[:, 1])], axis=1)
        alone, least = np.zeros(CLIPS, bool), np.full(CLIPS, 1.2)
        moved = settle(spans, bounds, alone, np.zeros(CLIPS), least, edges)
        for found, ends in ((before, spans), (after, moved)):
            found.append(truth[np.minimum((ends.ravel() / STEP_S).astype(int), len(truth) - 1)])
    return {"placed": round(float(np.mean(before)), 4), "moved": round(float(np.mean(after)), 4)}


def level_db(samples: np.ndarray) -> np.ndarray:
    chunks = samples[: len(samples) // CHUNK * CHUNK].reshape(-1, CHUNK)
    return 10 * np.log10(np.mean(np.square(chunks, dtype=np.float64), axis=1) + 1e-9)


def worth(detect: Detect, samples: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    start = time.process_time()
    said = detect(samples)
    ms = 1000 * (time.process_time() - start) / (len(samples) / RATE)
    wrong = said != truth
    parts = {"error": wrong.mean(), "alarms": wrong[~truth].mean()}
    if truth.any():
        parts["missed"] = wrong[truth].mean()
    return {name: round(float(value), 4) for name, value in parts.items()} | {"ms": round(ms, 2)}


def spoken() -> tuple[np.ndarray, np.ndarray]:
    """Two minutes of sentences, and where in them somebody speaks: f32[n] at 16 kHz, bool[n // CHUNK]."""
    rng, parts = np.random.default_rng(0), []
    for _ in range(4):
        for voice, text in SPEAKERS.items():
            for sentence in text.replace("! ", ". ").split(". "):
                pause = np.zeros(round(rng.choice(PAUSES_S) * RATE), np.float32)
                parts += [say(voice, sentence, int(rng.integers(140, 200))), pause]
    samples = np.concatenate(parts)
    samples = samples[: len(samples) // CHUNK * CHUNK]
    levels = level_db(samples)
    loud = levels > np.percentile(levels, 90) - BELOW_DB
    return samples, ndimage.binary_closing(loud, np.ones(round(IN_WORD_S / STEP_S)))


def say(voice: str, text: str, words_per_minute: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "said.wav"
        command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-w", str(wave), text]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError as error:
            raise click.ClickException("espeak-ng is not installed") from error
        with av.open(str(wave)) as file:
            resampler = av.AudioResampler("fltp", "mono", RATE)
            frames = [out for frame in file.decode(audio=0) for out in resampler.resample(frame)]
            return np.concatenate([out.to_ndarray()[0] for out in [*frames, *resampler.resample(None)]])


def read(file: str) -> np.ndarray:
    with open_source(file) as source:
        seconds = float(source.container.duration / av.time_base)
        stereo = read_samples(source, 0.0, int(seconds * 48000))
    return signal.resample_poly(stereo.mean(axis=1), 1, 3).astype(np.float32)


def mixed(voice: np.ndarray, truth: np.ndarray, other: np.ndarray, ratio_db: float) -> np.ndarray:
    """Voice with the other sound so far below it, measured where there is voice."""
    heard = np.repeat(truth, CHUNK)
    other = np.resize(other, len(voice))
    gain = np.std(voice[heard]) / max(float(np.std(other)), 1e-9) * 10 ** (-ratio_db / 20)
    both = voice + gain * other
    return (both / max(1.0, float(np.abs(both).max()))).astype(np.float32)


def pink(count: int) -> np.ndarray:
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(count))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    return np.fft.irfft(spectrum, count).astype(np.float32)


def chords(count: int) -> np.ndarray:
    """Plucked chords at 120 beats a minute over a drum."""
    rng, t, beat = np.random.default_rng(2), np.arange(RATE * 2) / RATE, RATE // 2
    music = np.zeros(count + len(t), np.float32)
    for at in range(0, count, beat):
        root = 220 * 2 ** (rng.choice([0, 3, 5, 7]) / 12)
        for step in (0, 4, 7):
            for overtone in (1, 2, 3, 4):
                hz = root * 2 ** (step / 12) * overtone
                music[at : at + len(t)] += np.sin(2 * np.pi * hz * t) * np.exp(-4 * t) / overtone
        music[at : at + len(t)] += rng.standard_normal(len(t)) * np.exp(-40 * t)
    return music[:count]


if __name__ == "__main__":
    main()
