"""Every example of the documentation runs: Python and console blocks, page by page, in order, in a folder of its own.

Comments before a block steer it: ``<!-- not run: reason -->`` leaves it out, ``<!-- exact -->`` compares what a
console block prints. ``<!-- goes on from: page.md -->`` on a page begins with the files that the other page left. A
comment that begins with the line ``<!-- setup`` holds Python that is run and not shown, for examples that are fragments.
"""

import os
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    p for p in [ROOT / "README.md", *DOCS.rglob("*.md")] if p.exists() and DOCS / "generated" not in p.parents
)
MOST_LEFT_OUT = 6
"""Blocks that are not run, over all pages: more than that, and the examples are no longer tested."""

BLOCK = re.compile(
    r"^(?P<indent>[ ]*)```(?P<kind>python|console)\b[^\n]*\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.DOTALL | re.MULTILINE,
)
SETUP = re.compile(r"^<!-- setup\n(?P<body>.*?)^-->", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!-- *(?P<word>not run|exact)(?:: *(?P<reason>[^>]*?))? *-->\s*$")
GOES_ON = re.compile(r"^<!-- *goes on from: *(\S+) *-->", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block: its kind, text, line in the page, and the comment before it."""

    kind: str
    text: str
    line: int
    comment: str
    reason: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    out = [
        Block("python", m["body"], text.count("\n", 0, m.start()) + 2, "", "") for m in SETUP.finditer(text)
    ]
    for match in BLOCK.finditer(text):
        before = COMMENT.search(text[: match.start()])
        indent = match["indent"]
        body = "".join(line.removeprefix(indent) for line in match["body"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 2
        comment, reason = (before["word"], before["reason"] or "") if before else ("", "")
        out.append(Block(match["kind"], body, line, comment, reason))
    return sorted(out, key=lambda block: block.line)


def run_page(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the blocks of a page in the present folder."""
    space: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.comment == "not run":
            continue
        if block.kind == "console":
            run_console(block, page, capsys)
        else:
            # the line numbers of a failure are those of the page
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            exec(code, space)


def run_console(block: Block, page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run each line ``$ thalweg ...`` of a console block; another command is a mistake in the page."""
    from thalweg.cli import main

    pieces = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not pieces[0].strip(), f"{page.name}:{block.line}: a console block begins with a command"
    for piece in pieces[1:]:
        command, _, expected = piece.partition("\n")
        words = shlex.split(command, comments=True)
        assert words[0] == "thalweg", f"{page.name}:{block.line}: only thalweg is run, not {words[0]}"
        capsys.readouterr()
        shown = warnings.showwarning
        try:
            with pytest.raises(SystemExit) as ended:
                main(words[1:])
        finally:
            warnings.showwarning = shown
        said = capsys.readouterr()
        assert ended.value.code in (0, None), f"{page.name}:{block.line}: {command}\n{said.out}{said.err}"
        if block.comment == "exact":
            assert said.out.strip() == expected.strip(), f"{page.name}:{block.line}: {command}"


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    monkeypatch.setenv("COLUMNS", "100")
    threads, modes = torch.get_num_threads(), torch.is_grad_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_grad_enabled(modes)


@pytest.fixture(scope="session")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Page -> a folder with the files it left, once it has run."""
    return {"": tmp_path_factory.mktemp("pages")}


def goes_before() -> set[str]:
    """Pages that others go on from: what they leave is kept, so that each runs once."""
    return {name for page in PAGES for name in GOES_ON.findall(page.read_text(encoding="utf-8"))}


def files_of(page: str, left: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> Path:
    if page not in left:
        left[page] = left[""] / page
        left[page].mkdir()
        here = Path.cwd()
        os.chdir(left[page])
        try:
            run_page(DOCS / page, capsys)
        finally:
            os.chdir(here)
    return left[page]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(
    page: Path, left_behind: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for other in GOES_ON.findall(page.read_text(encoding="utf-8")):
        shutil.copytree(files_of(other, left_behind, capsys), tmp_path, dirs_exist_ok=True)
    if page.parent == DOCS and page.name in goes_before():
        files_of(page.name, left_behind, capsys)
    else:
        run_page(page, capsys)


def test_blocks_that_are_not_run_say_why_and_are_few() -> None:
    left_out = [(page, block) for page in PAGES for block in blocks_of(page) if block.comment == "not run"]
    assert all(len(block.reason.split()) >= 3 for _, block in left_out)
    assert len(left_out) <= MOST_LEFT_OUT


def test_every_fence_has_a_language() -> None:
    """A block without one would be neither run nor colored."""
    for page in PAGES:
        opening = True
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            if line.lstrip().startswith("```"):
                assert not opening or line.strip() != "```", f"{page.name}:{number}"
                opening = not opening


def test_the_reader_of_blocks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "text\n<!-- setup\nz = 0\n-->\n```python\na = 1\n```\n\n<!-- not run: no time -->\n```python\nb\n```\n\n"
        "1. list\n\n    ```console\n    $ thalweg ls\n    ```\n\n```bash\nls\n```\n"
    )
    setup, first, second, third = blocks_of(page)
    assert (setup.kind, setup.text, setup.line) == ("python", "z = 0\n", 3)
    assert (first.text, first.line, first.comment) == ("a = 1\n", 6, "")
    assert (second.comment, second.reason) == ("not run", "no time")
    assert (third.kind, third.text) == ("console", "$ thalweg ls\n")
