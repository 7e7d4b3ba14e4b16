"""Where in its thumbnail lies what a clip was chosen by: Grad-CAM of its score, laid over the picture.

in   row of a whole video after stages/cut.py
out  clips[k]["saliency"]  JPEG: the thumbnail in grey under the map; only of clips that are in the reel

Grad-CAM (Selvaraju et al., https://arxiv.org/abs/1610.02391) explains a class of a classifier. Here the score
of the clip takes its place, as a function of the vector v of the sample that the thumbnail shows:

    score(v) = (1 - w) I(l(s)) + w n(s)      s     what is judged: the mean of v over some seconds of its shot
    I(l)     = (1 - c) sigmoid(l) + c r l    w     cut.novelty_share; 1 without a learned scorer
    n(s)     = q d(s)                        l(s)  logit of the scorer at that sample
    d(s)     = mean of 1 - cos(s, m)         c     score.contrast
                                             m     samples about as like s as that which novelty goes by
                                             r, q  how steeply this video's logits and distances are mapped
                                                   to [0, 1], see stages/score.py

so dd/ds = -(t - (u.t) u) / |s| with u = s / |s| and t the mean of the m at unit length: what is not typical.
Novelty takes one m, which another soon replaces where s moves; several of them keep the direction steady.
The vector reaches the scorer by way of two of its signals as well, novelty and change; these count, too.

Occlusion (Zeiler & Fergus, https://arxiv.org/abs/1311.2901) by 7 x 7 grey patches was measured beside it on
32 clips of four real videos. With the fifth of its picture blurred that a map calls strongest, a clip's score
falls 12 times as far as with a random fifth; either map beats chance in 29 of the 32. Grad-CAM it is, because
it takes 14 ms a clip on one core, and occlusion 570.
"""

from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stages.nn.cnn import FeatureNet, grad_cam, last_map
from stages.nn.device import MicroBatches
from stages.nn.scorer import mean_direction
from stages.score import Score, grid, importance, within_shots

BATCH = 16
LANDMARKS = 256
CHUNK = 4096
JPEG_QUALITY = 78
# A map whose strongest place adds less to the score shows rounding errors: the picture did not matter.
LEAST = 1e-6
# Of the map over the picture, where it is strongest; and what is left of the picture's own light.
OPACITY, DIMMED = 0.85, 0.75


class Saliency:
    """Holds the frame network; a call adds `saliency` to the clips of a video that was scored and cut."""

    def __init__(self, score: Score, net: FeatureNet, novelty_share: float, colour: Literal["rgb", "hsv"]):
        self.score, self.novelty_share, self.parts = score, novelty_share, MicroBatches()
        self.to_network = cv2.COLOR_BGR2RGB if colour == "rgb" else cv2.COLOR_BGR2HSV
        self.net = net.to(score.device).requires_grad_(False)
        self.layer = last_map(self.net)
        if score.net is not None:
            score.net.requires_grad_(False)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        pictures = {
            number: picture
            for number, clip in enumerate(row["clips"])
            if clip["chosen"] and (picture := decoded(clip["thumbnail"])) is not None
        }
        if not pictures:
            return row
        maps = self.maps(row, pictures)
        strongest = max((float(found.max()) for found in maps.values()), default=0.0)
        clips = [dict(clip) for clip in row["clips"]]
        for number, found in maps.items():
            clips[number]["saliency"] = overlay(pictures[number], found, strongest)
        return row | {"clips": clips}

    def maps(self, row: dict[str, Any], pictures: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """The map [h, w] of each clip, at least 0, on the scale of its score; none that is not finite."""
        worth = Worth(row, self.score, self.novelty_share)
        numbers = list(pictures)
        shown_s = [row["clips"][number]["thumbnail_s"] for number in numbers]
        samples = np.clip(np.searchsorted(row["times_s"], shown_s), 0, len(row["times_s"]) - 1)

        def maps_of(part: list[tuple[int, int]]) -> list[tuple[int, np.ndarray]]:
            frames = [
                cv2.cvtColor(cv2.resize(pictures[number], (self.net.input_size,) * 2), self.to_network)
                for number, _ in part
            ]
            frames_NSSC = torch.from_numpy(np.stack(frames)).to(self.score.device)
            towards_ND = worth.gradient(np.array([sample for _, sample in part]))
            maps_Nhw = grad_cam(self.net, self.layer, frames_NSSC, towards_ND).relu().cpu().numpy()
            return [(number, one) for (number, _), one in zip(part, maps_Nhw, strict=True)]

        parts = self.parts(maps_of, list(zip(numbers, samples, strict=True)), BATCH)
        return {number: one for part in parts for number, one in part if np.isfinite(one).all()}


class Worth:
    """The score of the formula above, as a function of one sample's vector while all others stand still."""

    def __init__(self, row: dict[str, Any], score: Score, novelty_share: float):
        self.row, self.score, device = row, score, score.device
        judged_ND, new_N, signals_NS = score.inputs(row)
        features_ND = torch.from_numpy(judged_ND.astype(np.float32))
        self.judged_ND = features_ND.to(device)
        count = len(features_ND)
        marks = np.linspace(0, count - 1, min(count, LANDMARKS)).round().astype(int)
        self.marks_MD = F.normalize(self.judged_ND[torch.from_numpy(marks)], dim=-1)
        rank = min(len(marks) - 1, max(1, round(score.settings.typical_share * len(marks))))
        self.ranks = slice(rank // 2, max(1, 3 * rank // 2))
        away_N = torch.cat([self.distance(part) for part in self.judged_ND.split(CHUNK)])
        self.novelty_slope = slope(away_N.cpu().numpy(), new_N)
        self.novelty_share = 1.0 if score.net is None else novelty_share
        if score.net is None:
            return
        index_T, self.clock, steps = grid(row["times_s"], score.rate_hz)
        features_TD, seen_TS = features_ND[index_T], torch.from_numpy(signals_NS[index_T][:, score.columns])
        logits_T = score.net.score(features_TD, seen_TS).numpy()
        self.logit_slope = slope(logits_T, importance(logits_T, contrast=1.0))
        self.index_T, self.signals_TS = torch.from_numpy(index_T).to(device), seen_TS.to(device)
        self.centre_11D = mean_direction(features_TD)[None, None].to(device)
        # As much of the video on both sides as the scorer sees beyond each of its windows.
        self.window = min(len(steps), 2 * score.net.shape.margin + 1)

    def gradient(self, samples: np.ndarray) -> Tensor:
        """d score / d v of each sample, [B, D]."""
        times_s, cuts_s = self.row["times_s"], self.row["cuts_s"]
        one_NB = np.zeros((len(times_s), len(samples)), np.float32)
        one_NB[samples, np.arange(len(samples))] = 1
        # ds_j / dv_i: how much of what is judged at each moment is the picture of this one.
        parts_BN = torch.from_numpy(within_shots(one_NB, times_s, cuts_s).T).to(self.judged_ND.device)
        samples_B = torch.from_numpy(samples).to(parts_BN.device)
        shift_BD = torch.zeros(len(samples), self.judged_ND.shape[1], device=parts_BN.device)
        shift_BD.requires_grad_()
        own_B1 = parts_BN.gather(1, samples_B[:, None])
        worth_B = self.novelty_slope * self.distance(self.judged_ND[samples_B] + own_B1 * shift_BD)
        if self.score.net is not None:
            # cuDNN's recurrent cells have no gradient outside training.
            with torch.backends.cudnn.flags(enabled=False):
                logits_B = self.logits(shift_BD, parts_BN, samples_B)
            contrast = self.score.settings.contrast
            learned_B = (1 - contrast) * torch.sigmoid(logits_B) + contrast * self.logit_slope * logits_B
            worth_B = (1 - self.novelty_share) * learned_B + self.novelty_share * worth_B
        (gradient_BD,) = torch.autograd.grad(worth_B.sum(), shift_BD)
        return gradient_BD

    def distance(self, vectors_XD: Tensor) -> Tensor:
        """Mean cosine distance [X] to the landmarks of the middle ranks by likeness to each vector."""
        apart_XM = 1 - F.normalize(vectors_XD, dim=-1) @ self.marks_MD.T
        return apart_XM.sort(dim=-1).values[..., self.ranks].mean(-1)

    def logits(self, shift_BD: Tensor, parts_BN: Tensor, samples_B: Tensor) -> Tensor:
        """The scorer's logit [B] at each sample, from the steps around it, if its vector moves by `shift`."""
        last = len(self.index_T) - 1
        at_B = torch.from_numpy(self.clock * self.score.rate_hz).to(shift_BD.device)[samples_B].clamp(0, last)
        first_B = (at_B.long() - self.window // 2).clamp(0, last + 1 - self.window)
        steps_BW = first_B[:, None] + torch.arange(self.window, device=shift_BD.device)
        index_BW = self.index_T[steps_BW]

        def judged(at_BW: Tensor) -> Tensor:
            return self.judged_ND[at_BW] + parts_BN.gather(1, at_BW)[..., None] * shift_BD[:, None]

        features_BWD = judged(index_BW)
        signals_BWS = self.signals_TS[steps_BW].clone()
        # As stages.score.signals makes them of vectors. Their values are known: only how they move is added.
        for column, name in enumerate(self.score.net.shape.signals):
            if name == "novelty":
                new_BW = 2 * self.novelty_slope * self.distance(features_BWD)
                signals_BWS[..., column] += new_BW - new_BW.detach()
            elif name == "change":
                before_BWD = judged((index_BW - 1).clamp(min=0))
                change_BW = -4 * F.cosine_similarity(features_BWD, before_BWD, dim=-1)
                signals_BWS[..., column] += change_BW - change_BW.detach()
        directions_BWD = F.normalize(features_BWD, dim=-1)
        moved_B1D = (directions_BWD - directions_BWD.detach()).sum(1, keepdim=True) / (last + 1)
        logits_BW = self.score.net(features_BWD, self.centre_11D + moved_B1D, signals_BWS)
        # The sample has its place between two steps, as in Score.
        near_BW = (1 - (steps_BW - at_B[:, None]).abs()).clamp(min=0)
        return (near_BW.float() * logits_BW).sum(1)


def slope(values: np.ndarray, stretched: np.ndarray) -> float:
    """How steeply values were mapped to [0, 1], where they were not cut off; 0 if they all were."""
    inside = (stretched > 0) & (stretched < 1)
    width = float(np.ptp(values[inside])) if inside.any() else 0.0
    return float(np.ptp(stretched[inside])) / width if width > 0 else 0.0


def decoded(jpeg: bytes | None) -> np.ndarray | None:
    """The picture, BGR uint8 [H, W, 3]; None if it cannot be decoded."""
    try:
        return cv2.imdecode(np.frombuffer(jpeg or b"", np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # of no bytes at all, and of a header that asks for too much
        return None


def overlay(picture: np.ndarray, found: np.ndarray, strongest: float) -> bytes | None:
    """JPEG of the picture in grey, glowing where the map [h, w] is strong; None for a map of nothing.

    A clip whose picture mattered less than that of the video's `strongest` glows less: by the root of it, as
    the eye would see nothing of a tenth.
    """
    peak = float(found.max())
    if peak < LEAST:
        return None
    height, width = picture.shape[:2]
    places = np.clip(cv2.resize(found / peak, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    # Of even steps to the eye, and for the colour blind.
    glow = cv2.applyColorMap(np.round(255 * places).astype(np.uint8), cv2.COLORMAP_INFERNO)
    alpha = (OPACITY * np.sqrt(peak / strongest) * places)[..., None]
    grey = DIMMED * cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None]
    blended = np.round(grey * (1 - alpha) + glow * alpha).astype(np.uint8)
    encoded, data = cv2.imencode(".jpg", blended, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes() if encoded else None
