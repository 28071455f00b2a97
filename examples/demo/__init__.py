"""A real worker, a few tasks, a group and a chord, and the rows that they leave. Run by scripts/demo.

celeryconfig.py and tasks.py are what a user of Celery writes; the rest shows it: __main__ → story → screen.
"""
