"""Sphinx configuration. Build with: sphinx-build -W --keep-going -n -b html docs site"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
sys.path.append(str(HERE.parent))  # the checkout, where xsample is not installed

project = "xsample"
html_title = "xsample"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "generated",
]
exclude_patterns = ["_ext"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
# No inventories are fetched: types of other packages, and of modules that are not documented, have
# no page here.
nitpick_ignore_regex = [(r"py:.*", r"^(?!xsample\.\w+$).*")]
default_role = "code"  # a name in `backticks` is code, as in Markdown
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["_static"]
html_css_files = ["site.css"]
