"""Links and commands of the documentation lead somewhere."""

import functools
import re
from pathlib import Path

import pytest

from configs.base import SYSTEMS, base
from experiments.shared.recipes import OPEN
from experiments.shared.run_config import flat
from tests.commands import in_process

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "configs").glob("*.py"))


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


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda page: page.name)
def test_settings_that_are_named_exist(page):
    named = re.findall(r"--config\.((?:model|data|loss|optimizer|training)\.[\w./]+)", page.read_text(encoding="utf-8"))
    known = {key for system in SYSTEMS for key in flat(base(system))}
    chosen = tuple(f"{section}." for section in OPEN)  # whose keys are those of an argument, or a user's
    assert not [key for key in named if key.rstrip(".") not in known and not key.startswith(chosen)]


@functools.cache
def flags_of(command: str) -> set[str]:
    printed = in_process(command, "--help").stdout
    names = re.findall(r"^ +(?:-\w,)?--(\[no\])?(\w+):", printed, re.M)
    return {"help", "config", *(name for _, name in names), *(f"no{name}" for negated, name in names if negated)}


@pytest.mark.parametrize("page", [*PAGES, *RECIPES, ROOT / "Makefile"], ids=lambda page: page.name)
def test_flags_that_are_named_exist(page):
    text = re.sub(r"\\+\n", " ", page.read_text(encoding="utf-8"))
    uses = re.findall(
        r"(?:-m experiments\.|contextjax )([a-z_]+)\b(.*?)(?=-m experiments|contextjax |[`|;&\n]|$)", text
    )
    commands = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"launch"}  # it takes another's flags
    assert not [
        f"{command} --{flag}"
        for command, rest in uses if command in commands
        for flag in re.findall(r"(?<!\S)--(\w+)", rest) if flag not in flags_of(command)
    ]  # fmt: skip


def test_the_api_reference_names_modules():
    pages = sorted((ROOT / "docs" / "reference" / "api").glob("*.md"))
    named = [name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.M)]
    places = {name: ROOT / Path(*name.split(".")) for name in named}
    assert len(named) == len(places) > 20
    assert not [name for name, place in places.items() if not (place.with_suffix(".py").exists() or place.is_dir())]


def test_every_page_is_reached_from_the_index():
    """mkdocs lists all pages; who reads docs/index.md finds each guide, system and result, too."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [
        page
        for part in ("guides", "reference", "reference/api", "results")
        for page in (ROOT / "docs" / part).glob("*.md")
    ]
    assert not [page.name for page in pages if f"({page.relative_to(ROOT / 'docs')})" not in index]
