"""An explanation as one HTML page: the network drawn, the mathematics set, a slider through it."""

from xbackprop.observe.page.document import framed, page

__all__ = ["framed", "page"]
