"""Signed bodies: whoever can write a row of a chord can not let a worker send a task of his choice.

A body that a worker finds in a row is sent as it stands there. So it is signed, with a secret that the processes of the
app share and the database does not know, for the one chord that it belongs to. The signature is a key more in its JSON:
a process of an older release, or one without the secret, reads past it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from celery.exceptions import SecurityError

__all__ = ["FAIL", "SEND", "Signer"]

#: What a body is kept for.
SEND, FAIL = b"send", b"fail"
#: What stands between the JSON of a body and its signature, and what ends it.
KEY, END = b', "celery_sql_results_signature": "', b'"}'


class Signer:
    """Signs the bodies of one app.

    Args:
        secrets: the first signs, and any may have signed; without one, nothing is signed and all is taken.
        takes_unsigned: whether a body without a signature is taken all the same, while the secret is introduced.
    """

    def __init__(self, secrets: Sequence[str], takes_unsigned: bool) -> None:
        self._keys = [secret.encode() for secret in secrets]
        self._takes_unsigned = takes_unsigned or not secrets

    def signed(self, group_id: str, body: bytes | None, purpose: bytes) -> bytes | None:
        """The JSON of a body with its signature: to be sent (``SEND``), or no more than to fail (``FAIL``)."""
        if body is None or not self._keys:
            return body
        return body[:-1] + KEY + _signature(self._keys[0], group_id, body, purpose) + END

    def opened(self, group_id: str, stored: bytes, purpose: bytes) -> bytes:
        """The JSON of a body that was stored for a purpose.

        Raises:
            SecurityError: it was not signed with one of the secrets, for this chord and this purpose.
        """
        text, key, signature = bytes(stored).rpartition(KEY)
        body = text + b"}" if key else bytes(stored)
        expected = [_signature(each, group_id, body, purpose) + END for each in self._keys if key]
        if any(hmac.compare_digest(each, signature) for each in expected):
            return body
        if self._takes_unsigned and not (key and self._keys):
            return body
        wrong = "is signed with another secret, or for another chord" if key else "is not signed"
        raise SecurityError(f"the body {wrong}: database_chord_secrets must be the same in all processes")


def _signature(key: bytes, group_id: str, body: bytes, purpose: bytes) -> bytes:
    message = b"%s %d:%s" % (purpose, len(group_id.encode()), group_id.encode()) + body
    return hmac.new(key, message, hashlib.sha256).hexdigest().encode()
