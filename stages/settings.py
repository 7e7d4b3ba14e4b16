"""The base of every settings model: frozen, and a misspelt key is an error, not a default."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
