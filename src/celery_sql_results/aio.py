"""Await results, without a thread and a driver of one's own: the thread that looks for all results serves these waits.

::

    value = await add.delay(1, 1)
    value = await result.aget(timeout=10)

    async for result in as_completed([add.delay(1, 1), add.delay(2, 2)]):
        print(result.id, result.state)

    async for state, info in result.watch():  # every state and progress, for an event stream
        ...

Results have these methods once their app has its backend, as it has after it has sent a task or :attr:`app.backend` was
asked for. The functions here take any result.
"""

from __future__ import annotations

from .waiting.aio import Seen, as_completed
from .waiting.aio import join as aget
from .waiting.aio import seen as watch

__all__ = ["Seen", "aget", "as_completed", "watch"]
