"""Sphinx configuration of the documentation; `make docs` builds it offline into build/docs."""

import re
import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import generate  # noqa: E402  # beside this file

project = "ftkit"
author = copyright = "The ftkit developers"
release = metadata.version("ftkit")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["assets"]
# -W makes warnings errors. The rest of a heading's number of levels, as in the changelog, is the author's choice.
suppress_warnings = ["myst.header"]

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
napoleon_use_rtype = False  # the type of a return value is in the signature
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries = False

html_theme = "furo"
html_title = f"ftkit {release}"
html_static_path = ["assets/site.css"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2a5db0", "color-brand-content": "#2a5db0"},
    "dark_css_variables": {"color-brand-primary": "#8ab4f8", "color-brand-content": "#8ab4f8"},
}
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Put what is generated in the place of its marker, and pages that are not listed in the place of `FOLDER/*`."""
    for kind, write in generate.KINDS.items():
        marker = f"<!-- generated: {kind} -->"
        if marker in source[0]:
            source[0] = source[0].replace(marker, write(source[0]))
    if name == "index":
        listed = set(re.findall(r"^[\w/-]+$", source[0], re.MULTILINE))
        source[0] = re.sub(r"^[\w/]*\*$", lambda pattern: _unlisted(pattern[0], listed), source[0], flags=re.MULTILINE)


def _unlisted(pattern: str, listed: set[str]) -> str:
    found = (path.relative_to(DOCS).with_suffix("").as_posix() for path in sorted(DOCS.glob(f"{pattern}.md")))
    return "\n".join(page for page in found if page not in {*listed, "index"})


def setup(app: Sphinx) -> None:
    """Connect the generated parts."""
    app.connect("source-read", fill)
