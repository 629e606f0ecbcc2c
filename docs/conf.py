"""The documentation site: `make docs` builds it into docs/_build/html."""

import functools
import os
import pathlib
import re
import shutil
import sys

_HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(_HERE.parent), str(_HERE)]
# The kernels of the tutorials are processes of their own.
os.environ["PYTHONPATH"] = str(_HERE.parent)
os.environ["PATH"] = (
    f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import nbclient  # noqa: E402
import reference_pages  # noqa: E402
from numpy.typing import ArrayLike  # noqa: E402
from sphinx.util.typing import stringify_annotation  # noqa: E402

import atat_tf  # noqa: E402

project = "ATAT"
author = "The atat-tf authors"
release = version = atat_tf.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "gallery"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
# What a tutorial writes is gone with it.
nb_execution_in_temp = True
nb_merge_streams = True
# What a command prints comes in pieces that may end in the middle of a line.
nbclient.NotebookClient.__init__ = functools.partialmethod(
    nbclient.NotebookClient.__init__, coalesce_streams=True
)
# TensorFlow's C++ writes of the machine there.
nb_output_stderr = "remove"

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True

# Nothing is fetched from elsewhere: the site works offline too.
nb_ipywidgets_js = {}

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
html_title = "ATAT"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
# Pages that have none beside them.
html_sidebars = {name: [] for name in ("index", "get_started", "results")}
html_theme_options = {
    "show_prev_next": True,
    "collapse_navigation": True,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

# Pages of the repository that stand outside of docs/, and their place here.
_OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "serving/README.md": "serving.md",
}


def setup(app):
    """Connects what the build does beside Sphinx's own work."""
    app.connect("builder-inited", lambda _: reference_pages.write(_HERE))
    app.connect("source-read", _lead_inside)
    app.connect("include-read", _lead_inside_included)
    app.connect("build-finished", _copy_gallery)
    # Before the types are put beside the parameters.
    app.connect("object-description-transform", _name_arrays, priority=400)


def _name_arrays(app, domain, kind, content):
    """Puts the name of NumPy's union of types into the place of its members."""
    members = stringify_annotation(ArrayLike, "smart")
    for types in app.env.current_document.autodoc_annotations.values():
        for name, text in types.items():
            types[name] = text.replace(members, "ArrayLike")


def _lead_inside(app, name, content):
    """Has links to files of the repository lead to pages of the site."""
    folder = (_HERE / f"{name}.md").parent
    content[0] = _with_links(content[0], folder, folder)


def _lead_inside_included(app, relative_path, parent, content):
    source = (_HERE / relative_path).resolve()
    content[0] = _with_links(content[0], source.parent, _HERE)


def _with_links(text, folder, page_folder):
    def link(match):
        words, path, anchor = match.groups()
        file = pathlib.Path(os.path.normpath(folder / path))
        inside = _OUTSIDE.get(os.path.relpath(file, _HERE.parent))
        if inside:
            file = _HERE / inside
        if not file.exists():
            return match.group()
        if _HERE not in file.parents or file.suffix not in (".md", ".png"):
            # A file of the source: told, not linked.
            return f"{words} (`{os.path.relpath(file, _HERE.parent)}`)"
        return f"[{words}]({os.path.relpath(file, page_folder)}{anchor or ''})"

    return re.sub(r"\[([^\]]+)\]\(([\w./-]+)(#[\w-]+)?\)", link, text)


def _copy_gallery(app, error):
    if error is None and app.builder.name == "html":
        target = pathlib.Path(app.outdir, "gallery")
        shutil.copytree(_HERE / "gallery", target, dirs_exist_ok=True)
