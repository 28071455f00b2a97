"""How Sphinx builds these pages; run scripts/docs."""

from docutils import nodes
from sphinx.application import Sphinx

from celery_sql_results import __version__

project = "celery-sql-results"
author = "celery-sql-results contributors"
copyright = "2026, celery-sql-results contributors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"celery-sql-results {version}"
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Know the role that docstrings inherited from Celery name its settings with."""
    app.add_generic_role("setting", nodes.literal)
