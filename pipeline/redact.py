"""Secrets taken out of what is to be written: URIs with a login, text of errors that quote what was sent."""

import os
import re

from stages.filesystem import without_login

__all__ = ["without_login", "without_secrets"]

_SIGNED = "X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig"  # in a query
_SHORTEST_SECRET = 8  # a shorter one would blank ordinary words


def without_secrets(text: str) -> str:
    """Text that may quote URIs or what a server answered, without passwords, signatures and our own keys."""
    text = re.sub(r"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"]*@", r"\1", text)
    text = re.sub(r"(https?://[^?#\s'\"]*)[?#][^\s'\"<>)]*", r"\1?…", text, flags=re.IGNORECASE)
    text = re.sub(rf"\b({_SIGNED})=[^&\s'\"<>)]+", r"\1=…", text, flags=re.IGNORECASE)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        value = os.environ.get(name, "")
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"({name})")
    return text
