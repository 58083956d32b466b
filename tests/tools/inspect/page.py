"""An answer's HTML, looked through."""

from html.parser import HTMLParser

VOID = set("meta link input br img rect line".split())
BLOCKS = set("p li td th dt dd option h1 h2 h3 h4 summary".split())


class Page(HTMLParser):
    """An answer's HTML: elements with their attributes, ids, and whether all that opens closes."""

    def __init__(self, response, status=200):
        super().__init__()
        assert response.status_code == status, response.text[:2000]
        self.found, self.open, self.words = [], [], []
        self.feed(response.text)
        assert not self.open
        self.text = " ".join("".join(self.words).split())
        ids = [attributes["id"] for _, attributes in self.found if "id" in attributes]
        assert len(ids) == len(set(ids))
        self.ids = dict(zip(ids, (one for one in self.found if "id" in one[1])))
        labelled = {attributes.get("for") for tag, attributes in self.found if tag == "label"}
        for tag, attributes in self.found:
            if tag in ("input", "select", "textarea"):
                assert attributes["id"] in labelled
            if tag == "img":
                assert attributes["alt"]
            if tag == "th":
                assert attributes["scope"]
            assert not any(name.startswith("on") or name == "style" for name in attributes)
            address = attributes.get("href", "")
            assert address.startswith(("#", "/")) or not address, address
            if address.startswith("#"):
                assert address[1:] in ids, address

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in BLOCKS:
            self.words.append(" ")

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag, **wanted):
        return [
            attributes
            for name, attributes in self.found
            if name == tag
            and wanted.items() <= {k.replace("-", "_"): v for k, v in attributes.items()}.items()
        ]
