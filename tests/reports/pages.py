"""How tests look at a page: its tags, and a browser where there is one."""

import html
import html.parser
import re
import shutil
import subprocess

import pytest

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> \"a\" & 'b' {{ 7*7 }} "
    + "long" * 60
    + " \x1b[2J\u202e and then"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed (apt-get install chromium)")


class Tags(html.parser.HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def named(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


def chromium(tmp_path, page):
    """The page's DOM after its scripts ran."""
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    off = ("gpu", "quic", "background-networking", "component-update", "sync", "dev-shm-usage")
    flags = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in off)]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def measure(tmp_path, page):
    """Widths of the page at phone and at desktop width: window, content, first table's box, first table.

    Measured in frames, since a headless window is never narrower than about 500 pixels.
    """
    page = html.escape(page)
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{page}"></iframe>' for width in (390, 1280))
    script = """<script>addEventListener("load", () => {
      const measure = ({contentDocument: d}) => {
        const [page, box] = [d.documentElement, d.querySelector(".scroll")];
        return [page.clientWidth, page.scrollWidth, box.clientWidth, box.scrollWidth].join(",");
      };
      const widths = [...document.querySelectorAll("iframe")].map(measure).join(";");
      document.body.innerHTML = `<p>widths ${widths}</p>`;
    });</script>"""
    dom = chromium(tmp_path, f"<!doctype html><meta charset=utf-8><body>{frames}{script}</body>")
    measured = re.search(r"<p>widths (.*?)</p>", dom)[1].split(";")
    return [[int(number) for number in widths.split(",")] for widths in measured]
