"""Voice activity: the probability of speech in every 32 ms of sound, by numpy alone: decoding has no torch.

Silero VAD (https://github.com/snakers4/silero-vad, MIT), whose package holds the weights; what is read here
is the file of its network for 16 kHz, 310k parameters.

    samples ─ chunks of 512, each after 64 of the one before ─ STFT ─ 4 convolutions ─ LSTM ─ probability

All but the LSTM sees a chunk by itself, so a stretch of sound goes through it as one batch.
B batch, T chunks, F frames of the STFT within a chunk, D channels.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import load_file

RATE = 16_000
CHUNK = 512
CONTEXT = 64
STEP_S = CHUNK / RATE
WIDTH = 128  # of what the LSTM is given, and of its state
_PAD = 64
_WINDOW, _HOP, _BINS = 256, 128, 129
_STRIDES = (1, 2, 2, 1)  # of the convolutions


def encode(samples: np.ndarray) -> np.ndarray:
    """f32[CONTEXT + T * CHUNK] mono at 16 kHz -> f32[T, WIDTH]: what is heard in each chunk by itself."""
    w = _weights()
    chunks_TC = sliding_window_view(samples, CONTEXT + CHUNK)[::CHUNK]
    padded_TC = np.pad(chunks_TC, ((0, 0), (0, _PAD)), mode="reflect")
    waves_TFB = sliding_window_view(padded_TC, _WINDOW, axis=1)[:, ::_HOP] @ w["stft_conv.weight"][:, 0].T
    x_TFD = np.hypot(waves_TFB[..., :_BINS], waves_TFB[..., _BINS:])
    for number, stride in enumerate(_STRIDES, 1):
        x_TFD = _convolve(x_TFD, w[f"conv{number}.weight"], w[f"conv{number}.bias"], stride)
    return x_TFD[:, 0]


def listen(heard_BTD: np.ndarray) -> np.ndarray:
    """What `encode` gave, f32[B, T, WIDTH], from rest -> probabilities f32[B, T]."""
    w = _weights()
    # sigmoid(x) = (1 + tanh(x / 2)) / 2: halved where a gate is one, a step needs one tanh for all four.
    halves_G = np.repeat(np.float32([0.5, 0.5, 1.0, 0.5]), WIDTH)
    bias_G = w["lstm_cell.bias_ih"] + w["lstm_cell.bias_hh"]
    given_TBG = (heard_BTD.swapaxes(0, 1) @ w["lstm_cell.weight_ih"].T + bias_G) * halves_G
    recurrent_DG = w["lstm_cell.weight_hh"].T * halves_G
    hidden_BD = cell_BD = np.zeros((len(heard_BTD), WIDTH), np.float32)
    hidden_TBD = np.empty((*given_TBG.shape[:2], WIDTH), np.float32)
    for step, given_BG in enumerate(given_TBG):
        gates_BG = np.tanh(given_BG + hidden_BD @ recurrent_DG)
        enter, keep, new, leave = (gates_BG[:, k * WIDTH : (k + 1) * WIDTH] for k in range(4))
        cell_BD = 0.5 * ((1 + keep) * cell_BD + (1 + enter) * new)
        hidden_TBD[step] = hidden_BD = 0.5 * (1 + leave) * np.tanh(cell_BD)
    logits_BT = (np.maximum(hidden_TBD, 0) @ w["final_conv.weight"][0, :, 0]).T
    return _sigmoid(logits_BT + w["final_conv.bias"])


def _convolve(x_TFD: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """A convolution of width 3 over F with a ReLU; weight [out, in, 3]."""
    padded = np.pad(x_TFD, ((0, 0), (1, 1), (0, 0)))
    windows_TFDK = sliding_window_view(padded, 3, axis=1)[:, ::stride]
    count, length = windows_TFDK.shape[:2]
    flat = windows_TFDK.reshape(count * length, -1) @ weight.reshape(len(weight), -1).T
    return np.maximum(flat + bias, 0).reshape(count, length, -1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


@cache
def _weights() -> dict[str, np.ndarray]:
    # Importing the package would import torch.
    package = Path(find_spec("silero_vad").origin).parent
    return load_file(package / "data" / "silero_vad_16k.safetensors")
