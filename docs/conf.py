"""The pages as a site: `sphinx-build -W -b html docs docs/_build` (pip install -e '.[docs]')."""

import importlib.metadata

project = "advanchor"
author = "the advanchor authors"
project_copyright = "2026, the advanchor authors"
release = importlib.metadata.version("advanchor")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings write `x` for code
highlight_language = "none"
smartquotes = False  # which would make one dash of two
myst_heading_anchors = 3
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"advanchor {release}"
