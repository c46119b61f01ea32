"""The documentation's examples run as they stand, and everything that it points to exists."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NAMES_DOCS = (".md", ".py", ".sh", ".toml", ".js", ".css", ".yml", ".yaml", "Dockerfile", "run")

FENCED = re.compile(r"^ *(```|~~~).*?^ *\1[ ]*$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(`+)(?:(?!\n\s*\n).)+?\1", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'(][^)]*)?\)")
DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", re.MULTILINE)
ATTRIBUTE = re.compile(r"(?:href|src|srcset)=\"([^\"\s]+)")
HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
HTML_ANCHOR = re.compile(r"<[^>]+\b(?:id|name)=\"([^\"]+)\"")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
NAMED = re.compile(r"\bdocs/[\w./-]*\.md\b")


def test_the_library_s_examples_run(photos: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "library.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    names = {"photos": photos}
    for block in blocks:
        exec(compile(block, "docs/library.md", "exec"), names)
    assert names["report"].indexed == 24
    assert names["ids"].shape == (1, 10)


def test_every_link_and_anchor_of_the_documentation_exists() -> None:
    pages = [path for path in _files(ROOT) if path.suffix == ".md"]
    assert {"README.md", "CHANGELOG.md", "docs/library.md"} <= {path.relative_to(ROOT).as_posix() for path in pages}
    assert [link for page in pages for link in _broken(page, ROOT)] == []


def test_every_page_of_the_docs_that_is_named_exists() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in _files(ROOT)
        if path.name.endswith(NAMES_DOCS)
        for name in NAMED.findall(FENCED.sub("", path.read_text(encoding="utf-8")))
    }
    assert len(named) > 20
    assert sorted((path, name) for path, name in named if not (ROOT / name).is_file()) == []


def test_the_list_of_the_docs_names_every_page() -> None:
    links = _links((DOCS / "README.md").read_text(encoding="utf-8"))
    listed = {DOCS / "README.md", *((DOCS / link.partition("#")[0]).resolve() for link in links)}
    assert sorted(set(DOCS.resolve().rglob("*.md")) - {page.resolve() for page in listed}) == []


@pytest.mark.parametrize(
    "broken",
    [
        "[gone](gone.md)",
        "[gone](#gone)",
        "[gone](there.md#gone)",
        "[a folder up](../there.md)",
        "![gone](gone.webp)",
        '<img src="gone.webp">',
        "[gone][a]\n\n[a]: gone.md",
        "[twice only](there.md#twice-2)",
        "[absolute](/there.md)",
    ],
)
def test_a_broken_link_is_found(broken: str, tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# It's `there`, *now*\n\n## Twice\n\n## Twice\n\n<a id='x'></a>\n", "utf-8")
    sound = (
        "# Here\n[a](there.md) [b](there.md#its-there-now) [c](#here) [d](there.md#twice-1) [e](https://a.example/x.md)\n"
        "`[code](gone.md)`\n\n```\n[code](gone.md)\n```\n"
    )
    page = tmp_path / "page.md"
    page.write_text(sound, encoding="utf-8")
    assert _broken(page, tmp_path) == []
    page.write_text(sound + broken + "\n", encoding="utf-8")
    assert len(_broken(page, tmp_path)) == 1


def _files(root: Path) -> list[Path]:
    """The files of the repository that are there: tracked, or new and not ignored."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):  # a source archive, or no git
        listed = [path.relative_to(root).as_posix() for path in root.rglob("*") if ".venv" not in path.parts]
    return [root / name for name in sorted(set(listed)) if name and (root / name).is_file()]


def _broken(page: Path, root: Path) -> list[str]:
    """The links of a Markdown page that lead to no file, out of `root`, or to no anchor of a page."""
    broken = []
    for link in _links(page.read_text(encoding="utf-8")):
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or not target.is_relative_to(root.resolve()):
            broken.append(f"{page.relative_to(root)}: {link}")
        elif anchor and target.suffix == ".md" and anchor not in _anchors(target.read_text(encoding="utf-8")):
            broken.append(f"{page.relative_to(root)}: {link}: no such heading")
    return broken


def _links(text: str) -> Iterator[str]:
    """What a page links and shows from within the repository, by Markdown or HTML; not what stands in its code."""
    text = CODE.sub(lambda code: "`" * len(code.group()), FENCED.sub("", text))
    for pattern in (LINK, DEFINITION, ATTRIBUTE):
        yield from (link for link in pattern.findall(text) if not ELSEWHERE.match(link))


def _anchors(text: str) -> set[str]:
    """The anchors of headings by GitHub's rule: small letters, hyphens, no punctuation, equal ones numbered."""
    text = FENCED.sub("", text)
    anchors = set(HTML_ANCHOR.findall(text))
    seen: Counter[str] = Counter()
    for heading in HEADING.findall(text):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", shown).lower()).replace(" ", "-")
        anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return anchors
