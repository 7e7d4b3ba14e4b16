"""What a stage raises when an item cannot go on. Anything else it raises is a failure, too."""


class Failed(Exception):
    """The item is broken or exceeds a limit; the message says what, and what to do."""


class Dropped(Exception):
    """The item is sound but not for us (no video stream, too short); the message says why."""


class Unavailable(Exception):
    """The storage does not give the item now: no fault of the item, so it is tried again, never recorded."""
