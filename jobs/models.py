"""The bundle that a command names, with errors that can be printed."""

from botocore.exceptions import BotoCoreError, ClientError

from pipeline import redact, storage
from stages.nn.weights import Bundle, BundleError, open_bundle


def open_models(uri: str | None) -> Bundle:
    """Raises BundleError in words, without a password or signature that the URI may hold."""
    try:
        return open_bundle(uri)
    except BundleError as error:
        raise BundleError(redact.without_secrets(str(error))) from error
    except (OSError, BotoCoreError, ClientError, ValueError, ImportError) as error:
        raise BundleError(f"cannot read the bundle {storage.shown(uri)}: {storage.reason(error)}") from error
