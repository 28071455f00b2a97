"""Chords without polling: the part that completes a header hands its results to the body.

``rows`` counts the parts in and elects one process, ``contract`` is what Celery sees of it. Each part is a row of its
own, so a part that runs twice counts once, and parts that return at once do not wait for each other. Who is elected has
a lease: if it dies before the body is sent, another part of the same chord, the upkeep of a worker or the next cleanup
takes over. The body's id is fixed when the chord begins, so even a body that was sent twice has one result.
"""
