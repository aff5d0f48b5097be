"""The site: what is generated is fresh, it builds without a warning, and it asks nothing of the network."""

import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build_docs() -> ModuleType:
    spec = spec_from_file_location("build_docs", ROOT / "tools" / "build_docs.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh(build_docs: ModuleType) -> None:
    stale = [
        path.name
        for path, text in build_docs.wanted().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"run python tools/build_docs.py: {stale}"


def test_nothing_generated_is_left_over(build_docs: ModuleType) -> None:
    there = {path for path in build_docs.OUT.rglob("*") if path.is_file()}
    assert there == set(build_docs.wanted())


def test_check_names_what_is_stale_and_writes_nothing(
    build_docs: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(build_docs, "ROOT", tmp_path)
    monkeypatch.setattr(build_docs, "wanted", lambda: {tmp_path / "new.md": "text\n"})
    assert build_docs.main(["--check"]) == 1
    assert "new.md" in capsys.readouterr().out
    assert not (tmp_path / "new.md").exists()
    assert build_docs.main([]) == 0
    assert (tmp_path / "new.md").read_text() == "text\n"
    assert build_docs.main(["--check"]) == 0


def test_every_method_paper_and_command_is_in_its_page(build_docs: ModuleType) -> None:
    import thalweg as tw

    made = {path.name: text for path, text in build_docs.wanted().items()}
    assert all(f"### {card.name}\n" in made["methods.md"] for card in tw.methods())
    assert all(f"| {paper.id} |" in made["papers.md"] for paper in tw.papers())
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"parts/(help-[a-z-]+\.md)", commands)) == {
        n for n in made if n.startswith("help-")
    }


def test_the_site_builds_without_warnings_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    # the theme announces its successor at every start unless it is told not to
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip(), done.stderr
    loads = re.compile(
        r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=["'](?:https?:)?//[^"']+["'][^>]*>"""
    )
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = [
            tag for tag in loads.findall(page.read_text(encoding="utf-8")) if 'rel="canonical"' not in tag
        ]
        assert not fetched, f"{page.name}: {fetched[:3]}"
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), (
            sheet
        )
