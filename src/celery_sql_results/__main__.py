"""``python -m celery_sql_results``: the same as ``celery-sql-results``."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
