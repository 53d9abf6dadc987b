"""How the documentation is built: `sphinx-build -W docs build/docs`."""

import retrypool

project = "retrypool"
author = "retrypool contributors"
copyright = author  # noqa: A001 - Sphinx asks for this name
release = version = retrypool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx.ext.viewcode"]
exclude_patterns = ["images/*.html"]
source_suffix = {".md": "markdown"}

# Docstrings mark code with single backticks.
default_role = "code"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Links into other projects would need the network; within these pages every link is checked.
intersphinx_mapping: dict[str, tuple[str, None]] = {}
linkcheck_ignore = ["https?://.*"]

html_theme = "furo"
html_title = "retrypool"
