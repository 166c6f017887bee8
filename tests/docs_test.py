"""Links and commands of the documentation lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    modules = set(re.findall(r"python -m (experiments(?:\.[a-z_]+)+)", text))
    modules |= {f"experiments.{name}" for name in re.findall(r"`contextjax ([a-z]+)", text)}
    places = {module: ROOT / Path(*module.split(".")) for module in modules}
    assert not [name for name, place in places.items() if not (place.with_suffix(".py").exists() or place.is_dir())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(
        re.findall(r"(?<![\w/.(])((?:docs|configs|launch|results)/[\w/.-]+\.(?:md|py|sh|ya?ml|jsonl?))\b", text)
    )
    assert not [name for name in named if not (ROOT / name).exists() and "NAME" not in name]
