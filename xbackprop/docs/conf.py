"""Settings of Sphinx; ``nox -s docs`` builds the pages."""

import inspect
import sys
from typing import Any

import xbackprop

project = "xbackprop"
copyright = "xbackprop contributors"
release = version = xbackprop.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"xbackprop {release}"
html_copy_source = False
pygments_style, pygments_dark_style = "friendly", "monokai"

autodoc_typehints = "none"  # numpydoc's sections say it, with shapes
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False


def signature_of_init(app: Any, what: str, name: str, obj: Any, *_: Any) -> tuple[str, str] | None:
    """Show what ``__init__`` takes; ``Module.__new__`` passes it on."""
    if what == "class" and issubclass(obj, xbackprop.Module):
        takes_arguments = obj.__init__ is not object.__init__
        parameters = inspect.signature(obj.__init__).parameters.values() if takes_arguments else ()
        plain = [p.replace(annotation=p.empty) for p in parameters if p.name != "self"]
        return str(inspect.Signature(plain)), ""
    return None


def resolve_short_name(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Link a name given without its module to the documented thing that has it.

    What has no page but is a name in the package stays plain text; the rest is a mistake.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].rpartition(".")[2]
    domain = env.get_domain("py")
    found = sorted(name for name in domain.objects if name.rpartition(".")[2] == target)
    if not found:
        modules = [module for name, module in sys.modules.items() if name.startswith("xbackprop")]
        return content if any(hasattr(module, target) for module in modules) else None
    place = (env, node["refdoc"], app.builder)
    return domain.resolve_xref(*place, "obj", found[0], node, content)


def setup(app: Any) -> None:
    """Connect what is above."""
    app.connect("autodoc-process-signature", signature_of_init)
    app.connect("missing-reference", resolve_short_name)
