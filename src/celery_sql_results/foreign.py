"""What comes from elsewhere, as it may be shown: on one line, short, and without a password.

Ids, names of tasks and the words of a server may hold anything: what forges a line of a log, what a terminal obeys, or
ten megabytes. So every logger of the package that tells of such things passes through here.
"""

from __future__ import annotations

import logging
import re
from typing import Any

__all__ = ["escaping", "named", "shown"]

#: Characters of one value in a line.
LONGEST = 500
#: A password in a URL, whatever it holds itself, or in a list of options.
_SECRETS = re.compile(
    r"""(://[^:/?#@\s]*:)\S*(?=@)|((?:password|passwd|pwd)(?:=|["']\s*:\s*))(?:'[^']*'|"[^"]*"|[^\s&;]*)""",
    re.IGNORECASE,
)
#: The same where the end of the URL was cut off.
_CUT = re.compile(r"(://[^:/?#@\s]*:)\S*$")


def shown(value: object) -> str:
    """The text of a value, escaped and clipped for one line."""
    text = value if type(value) is str else str(value)
    is_cut = len(text) > LONGEST
    text = _SECRETS.sub(lambda found: f"{found[1] or found[2]}***", text[: 2 * LONGEST])
    if is_cut:
        text = _CUT.sub(r"\1***", text[:LONGEST]) + "…"
    if not text.isprintable():
        text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    return text


def named(url: Any) -> str:
    """A URL of SQLAlchemy as it may be shown: without its password, and the query that may hold one."""
    return shown(url.set(query={}).render_as_string(hide_password=True))


def _show(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(arg if isinstance(arg, (int, float)) else shown(arg) for arg in record.args)
    return True


def escaping(logger: logging.Logger) -> logging.Logger:
    """A logger that shows the values in its lines as :func:`shown` does."""
    logger.addFilter(_show)
    return logger
