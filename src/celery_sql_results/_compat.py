"""Names of other libraries that are not public, all in one place.

Each makes something quicker, or closes a gap that the public way leaves. A release of its library may drop it: then
``private`` gives ``None``, one warning says so, and who asked for it goes the public way.
"""

from __future__ import annotations

import logging
from functools import reduce
from importlib import import_module
from typing import Any, Final

__all__ = ["PRIVATE", "private"]

logger = logging.getLogger(__name__)

#: What is lost without a name. Each is written as ``module:attribute.attribute``.
PRIVATE: Final[dict[str, str]] = {}

_told: set[str] = set()


def private(name: str) -> Any | None:
    """What stands under a name of :data:`PRIVATE`, or ``None`` if its library does not have it any more."""
    module, _, attributes = name.partition(":")
    try:
        return reduce(getattr, attributes.split("."), import_module(module))
    except (ImportError, AttributeError):
        if name not in _told:
            _told.add(name)
            logger.warning("%s is not there in this release: %s", name, PRIVATE[name])
        return None
