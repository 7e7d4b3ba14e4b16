"""The stages that make a reel, as the settings say and with their models loaded."""

from pipeline.config import Settings
from stages.colour import Grade
from stages.cut import Cut
from stages.effects import Effects
from stages.nn.weights import open_bundle
from stages.render import Render


def make_cut(settings: Settings) -> Cut:
    effects = settings.effects
    return Cut(settings.cut, () if effects.kind == "none" else effects.transitions, effects.transition_s)


def open_render(settings: Settings) -> Render:
    bundle = open_bundle(settings.bundle)
    grade = Grade(settings.colour, bundle) if settings.colour.kind != "none" else None
    effects = Effects(settings.effects, bundle) if settings.effects.kind != "none" else None
    return Render(settings.render, grade, effects, settings.limits)
