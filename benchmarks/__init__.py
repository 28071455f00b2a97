"""Our backend beside others, measured in one run on one machine.

::

    __main__.py   what is asked for
      │
    arena.py      the servers, durable, and a fresh database for each entry
      │
    race.py       contenders take turns: A, B, C, A, B, C …, in many short rounds
      │  cases/         what one round of each benchmark does
      │  contenders.py  each backend by the same few verbs; bare.py, django_settings.py
      │  player.py      a process in which one contender does what it is told
      │  worker.py      a Celery worker; worker_app.py is what it runs
      ▼
    report.py     tables and JSON, with machine.py: what it was measured on

"""
