"""Settings of the stages that hold a network.

They stand apart from these, as a driver needs no more of them: torch takes two seconds and 290 MB to import.
"""

from typing import Literal

from pydantic import Field, field_validator

from stages.nn.kinds import EFFECTS, Kind
from stages.pulses import AccentSettings
from stages.settings import Settings

DISSOLVE = "dissolve"


class FeatureSettings(Settings):
    kind: Kind = Field("compact", description="compact is ours; the others are torchvision's")
    weights: str = Field("bundle", description="bundle, official (torchvision's), or a .safetensors path")
    batch: int = Field(32, ge=1, description="frames in the network at a time; fewer if a GPU is full")
    # bf16 takes half the time, and moves scores by little: tau_b 0.997 to 0.999 on three videos.
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="what the network calculates in; auto: bf16 where the processor has it"
    )


class CodecSettings(Settings):
    kind: Literal["hyperprior", "vqvae", "none"] = "hyperprior"
    # Samples from one that is decoded alone to the next at most; in between, a frame is coded as its
    # difference from the one before where that is shorter. 1: each is decoded alone.
    key_every: int = Field(16, ge=1, le=256)
    rate: int = 2  # 0 is the smallest; the bundle's card says what each costs and what is left of the picture


class ScoreSettings(Settings):
    kind: Literal["lstm", "gru", "rnn", "novelty"] = Field(
        "lstm", description="of the scorer; novelty needs no trained scorer, and works with any features"
    )
    contrast: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the score that ranks within the video; the rest compares videos",
    )
    typical_share: float = Field(
        0.2, gt=0, lt=1, description="a sample is typical if this share of its video looks like it"
    )


class SaliencySettings(Settings):
    enabled: bool = Field(True, description="show on a chosen clip's thumbnail what it was chosen by")


class ColourSettings(Settings):
    kind: Literal["lut", "none"] = "lut"
    # 1 is the whole correction that the model proposes; a film keeps some of its own light.
    strength: float = Field(0.9, ge=0, le=1)
    # How far each shot's LUT goes towards the mean of the shots that look like it.
    agree: float = Field(0.8, ge=0, le=1)


class EffectSettings(Settings):
    kind: Literal["gan", "none"] = "gan"
    transitions: tuple[str, ...] = ("zoom", "whip", "blur", "spin", "twist", "ripple")
    strength: float = Field(0.8, ge=0, le=1)
    transition_s: float = Field(0.5, ge=0, le=5)
    accents: AccentSettings = Field(default_factory=AccentSettings)

    @field_validator("accents")
    @classmethod
    def known_accent(cls, accents: AccentSettings) -> AccentSettings:
        effect_names(accents.effect)
        return accents

    @field_validator("transitions")
    @classmethod
    def known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name != DISSOLVE:
                effect_names(name, DISSOLVE)
        return names

    @property
    def wants_generator(self) -> bool:
        made = [name for name in self.transitions if name != DISSOLVE]
        return self.kind == "gan" and (bool(made) or self.accents.clips > 0)


def effect_names(effect: str, *also: str) -> tuple[str, ...]:
    """("spin", "zoom") of "spin+zoom". Raises ValueError for what there is not.

    also   named among what there is
    """
    names = tuple(name.strip() for name in effect.split("+"))
    if unknown := [name for name in names if name not in EFFECTS]:
        there = ", ".join((*EFFECTS, *also))
        raise ValueError(f"no effect is called {', '.join(unknown)}: there are {there}")
    if len(set(names)) < len(names):
        raise ValueError(f"{effect}: each effect once")
    return names
