"""How a process waits for results.

``consumer`` knows what is awaited, ``notifier`` is the contract of a way to wait, ``poll`` and ``listen`` are the ways.
``contract`` and ``results`` are what Celery sees of it. A notification is a hint, the row is the truth: a lost one
costs time, never a result.
"""
