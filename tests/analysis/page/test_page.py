"""Pages run their own scripts alone, and what they contain is text."""

import base64
import hashlib
import re
from html.parser import HTMLParser

from analysis.page.page import Link, Page


class Scripts(HTMLParser):
    """Collects the policy of a page and the texts of its scripts."""

    def __init__(self, html: str):
        super().__init__()
        self.policy, self.texts, self._inside = "", [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"]
        self._inside = tag == "script"
        if self._inside:
            assert "src" not in named
            self.texts.append("")

    def handle_data(self, data):
        if self._inside:
            self.texts[-1] += data

    def handle_endtag(self, tag):
        self._inside = False


def sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_only_scripts_with_a_known_hash_run():
    from plotly.graph_objects import Figure

    page = Page("a page")
    page.chart(Figure({"data": [{"y": [1, 2]}], "layout": {"height": 300}}))
    page.text("<script>alert(1)</script>")
    found = Scripts(page.html())
    allowed = re.findall(r"'sha256-([^']+)'", found.policy)
    assert len(found.texts) >= 3 and {sha256(text) for text in found.texts} == set(allowed)
    assert "script-src 'sha256-" in found.policy
    assert not any("alert(1)" in text for text in found.texts)


def test_cells_links_and_anchors_are_escaped():
    page = Page("a page")
    page.table(
        ["<a>", "b"],
        [[Link("<3>", 'a folder/lo"g.txt'), "<b>"], [4, 5]],
        row_ids=["t3", "t4"],
    )
    html = page.html()
    assert '<a href="a%20folder/lo%22g.txt">&lt;3&gt;</a>' in html
    assert '<tr id="t3">' in html and "<b>" not in html
    assert "<button>&lt;a&gt;</button>" in html
