"""The command line, through the real programs: `celery results …` and `celery-sql-results …`."""
