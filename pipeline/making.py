"""The stages that hold models, as the settings say and with their models loaded."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Settings
from pipeline.guard import Stage
from pipeline.publish import MEDIA, upload
from pipeline.recall import Recall
from stages.colour import Grade
from stages.compress import Compress
from stages.container import keeping_blocks
from stages.cut import Cut
from stages.effects import Effects
from stages.features import ExtractFeatures
from stages.nn import cnn
from stages.nn.weights import Bundle, BundleError, open_bundle
from stages.render import Render
from stages.saliency import Saliency
from stages.score import Score
from stages.watchdog import unwatched


def make_recall(settings: Settings, archive: str, threads: int) -> Stage:
    torch.set_num_threads(threads)
    return Recall(archive, settings, open_bundle(settings.bundle))


def make_look(settings: Settings, threads: int) -> Stage:
    """Every network that needs decoded pictures, in one place: they are read once."""
    torch.set_num_threads(threads)
    bundle = open_bundle(settings.bundle)
    features, codec = ExtractFeatures(settings.features, bundle), Compress(settings.codec, bundle)
    return lambda row: codec(features(row))


def make_score(settings: Settings) -> Stage:
    """Everything that looks at a whole video at once, from its vectors and thumbnails."""
    torch.set_num_threads(1)
    bundle = open_bundle(settings.bundle)
    score = Score(settings.score, bundle, settings.features)
    cut = make_cut(settings)
    if not settings.saliency.enabled:
        return lambda row: cut(score(row))
    net = cnn.load(bundle, settings.features.kind, settings.features.weights)
    saliency = Saliency(score, net, settings.cut.novelty_share, settings.decode.colour)
    return lambda row: saliency(cut(score(row)))


def make_render(settings: Settings, output: str, threads: int) -> Stage:
    torch.set_num_threads(threads)
    render = open_render(settings)

    def run(row: dict[str, Any]) -> dict[str, Any]:
        with keeping_blocks(), tempfile.TemporaryDirectory(prefix="reelmap-") as folder:
            row = render(row, Path(folder))
            with unwatched():  # the storage has time-outs of its own
                return row | {"reel": upload(output, row, f"{MEDIA}/{row['video_id']}")}

    return run


def check_models(settings: Settings, bundle: Bundle) -> None:
    """Loads every model once: raises BundleError or ValueError if one does not fit."""
    ExtractFeatures(settings.features, bundle)
    Score(settings.score, bundle, settings.features)
    Compress(settings.codec, bundle)
    Grade(settings.colour, bundle)
    Effects(settings.effects, bundle)
    trained = bundle.card("features")["settings"].get("colour", "rgb")
    if settings.features.weights == "bundle" and settings.decode.colour != trained:
        raise BundleError(
            f"decode.colour is {settings.decode.colour}; the bundle's features were trained on {trained}"
        )


def make_cut(settings: Settings) -> Cut:
    effects = settings.effects
    return Cut(settings.cut, () if effects.kind == "none" else effects.transitions, effects.transition_s)


def open_render(settings: Settings) -> Render:
    bundle = open_bundle(settings.bundle)
    grade = Grade(settings.colour, bundle) if settings.colour.kind != "none" else None
    effects = Effects(settings.effects, bundle) if settings.effects.kind != "none" else None
    return Render(settings.render, grade, effects, settings.limits)
