"""What README and docs/ point to is there: links, headings, pages, options of commands."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

import vovnet
from vovnet.cli import _options_of
from vovnet.cli._habits import refuse_habits
from vovnet.errors import VovnetError

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [ROOT / "README.md", *PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"(?<!`)`(vovnet [^`]*)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """The headings' anchors on which GitHub and the site agree, so that a link works on both."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)).strip().lower()
        github, site = plain.replace(" ", "-"), re.sub(r"[-\s]+", "-", plain)
        if github == site:
            found.add(github)
    return found


def broken(page: Path, text: str) -> list[str]:
    links = LINK.findall(FENCE.sub("", text))
    return [link for link in links if not leads_somewhere(page, text, link)]


def leads_somewhere(page: Path, text: str, link: str) -> bool:
    if re.match(r"https?://", link):
        return True
    path, _, anchor = link.partition("#")
    if not path:
        return anchor in anchors(text)
    target = (page.parent / path).resolve()
    if not target.is_file() or (page.parent == DOCS and DOCS not in target.parents):
        return False  # the site has nothing of what lies outside docs/
    return not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


def commands(text: str) -> list[list[str]]:
    """What follows vovnet in the lines of shell examples, and in what is quoted, as words."""
    shells = "\n".join(code for kind, code in FENCE.findall(text) if kind == "sh")
    shells += "\n" + "\n".join(re.sub(r"\s+", " ", code) for code in QUOTED.findall(text))
    lines = shells.replace("\\\n", " ").splitlines()
    calls = [line.partition("vovnet ")[2] for line in lines if re.match(r"(.*\| )?vovnet \w", line)]
    return [shlex.split(call.partition(" > ")[0], comments=True) for call in calls]


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere_on_github_and_on_the_site(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_what_leads_nowhere_is_found():
    text = "# One (two)\n[a](#one-two) [b](#one) [c](gone.md) [d](structure.md#contracts)"
    assert broken(DOCS / "x.md", text) == ["#one", "gone.md"]
    assert broken(DOCS / "x.md", "[out](../LICENSE)") == ["../LICENSE"]
    assert broken(ROOT / "README.md", "[in](LICENSE) [no](docs/structure.md#no)") == [
        "docs/structure.md#no"
    ]


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: path.name)
def test_examples_have_options_that_there_are(page):
    for verb, *rest in commands(page.read_text(encoding="utf-8")):
        known = _options_of(verb)
        assert known or verb == "study", f"{verb} is no verb"
        options = {word[2:].partition("=")[0] for word in rest if re.match(r"--[a-z]", word)}
        assert options - known - {"help"} == set() or verb == "study", f"vovnet {verb}"


def test_what_others_type_is_answered_as_the_page_says():
    text = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    table = text.partition("it answers: type |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(.*?)` \| `(.*?)` \|$", table, re.MULTILINE)
    assert len(rows) == table.count("\n")  # beside the line under the head
    for typed, answer in rows:
        with pytest.raises(VovnetError, match=rf"Type: {re.escape(answer)}$"):
            refuse_habits(shlex.split(typed), _options_of)


def test_the_site_names_every_page_once():
    def leaves(node: list | dict | str) -> list[str]:
        if isinstance(node, str):
            return [node]
        inner = node if isinstance(node, list) else list(node.values())
        return [leaf for child in inner for leaf in leaves(child)]

    nav = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(nav) == [page.name for page in PAGES]


def defined(name: str) -> bool:
    """Whether a dotted name is that of a function or a class in its module, or of a method."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        home = ROOT.joinpath("src", *parts[:length])
        files = [file for file in (home.with_suffix(".py"), home / "__init__.py") if file.is_file()]
        if files:
            node: ast.AST | None = ast.parse(files[0].read_text(encoding="utf-8"))
            for part in parts[length:]:
                children = ast.iter_child_nodes(node)
                node = next((n for n in children if getattr(n, "name", None) == part), None)
                if node is None:
                    return False
            return True
    return False


def test_the_reference_names_what_there_is_and_all_that_the_package_offers():
    names = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in names if not defined(name)] == []
    assert set(vovnet.__all__) <= {name.rpartition(".")[2] for name in names}
    assert not defined("vovnet.load.nothing")


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
