"""What stands in an explanation's HTML page, read with the standard library's parser."""

from html.parser import HTMLParser

VOID = {"meta", "link", "input", "rect", "path", "br", "hr", "img"}


class PageReader(HTMLParser):
    """Keeps every element with its attributes, its ancestors and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self._open = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {[one.tag for one in self._open]}"

    def handle_starttag(self, tag, attrs):
        element = self._add(tag, attrs)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self._add(tag, attrs)

    def _add(self, tag, attrs):
        element = Element(tag, dict(attrs), list(self._open))
        self.elements.append(element)
        for ancestor in self._open:
            ancestor.inside.append(element)
        return element

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop().tag == tag

    def handle_data(self, data):
        for element in self._open:
            element.texts.append(data)

    def all(self, kind, within=None):
        """Return the elements of a class."""
        return [
            one
            for one in (self.elements if within is None else within.inside)
            if kind in one.attributes.get("class", "").split()
        ]

    def tags(self, tag):
        return [one for one in self.elements if one.tag == tag]


class Element:
    def __init__(self, tag, attributes, ancestors):
        self.tag = tag
        self.attributes = attributes
        self.ancestors = ancestors
        self.inside = []
        self.texts = []

    @property
    def text(self):
        return "".join(self.texts)

    def data(self, name):
        return self.attributes.get(f"data-{name}")
