"""The bundle that a command names, and whether it fits the settings, with errors that can be printed."""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipeline import redact, storage
from pipeline.config import Settings
from pipeline.guard import Stage
from pipeline.processes import Stopped, through
from stages.nn.weights import Bundle, BundleError, open_bundle


def open_models(uri: str | None) -> Bundle:
    """Raises BundleError in words, without a password or signature that the URI may hold."""
    try:
        return open_bundle(uri)
    except BundleError as error:
        raise BundleError(redact.without_secrets(str(error))) from error
    except (OSError, BotoCoreError, ClientError, ValueError, ImportError) as error:
        raise BundleError(f"cannot read the bundle {storage.shown(uri)}: {storage.reason(error)}") from error


def check_models(settings: Settings, bundle: Bundle) -> None:
    """Loads every model once, as the workers will: raises BundleError if one does not fit.

    In a process of its own, which has imported what that takes: a driver has no other use for it.
    """
    try:
        ((_, answer),) = through([{"failure": None}], "models", make_check, (settings, bundle), 1, deaths=1)
    except Stopped as error:
        raise BundleError(f"models cannot be loaded: {error}") from error
    if isinstance(answer, Exception):
        raise BundleError(f"models cannot be loaded: {answer}") from answer
    if failed := answer["failure"]:
        raise BundleError(f"models cannot be loaded: {failed['reason']}")
    if refused := answer.get("refused"):
        raise BundleError(refused)


def make_check(settings: Settings, bundle: Bundle) -> Stage:
    from pipeline import making

    def check(row: dict[str, Any]) -> dict[str, Any]:
        try:
            making.check_models(settings, bundle)
        except ValueError as error:
            return row | {"refused": str(error)}
        return row

    return check
