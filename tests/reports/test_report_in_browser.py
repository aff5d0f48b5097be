"""The page in a real browser: everything is drawn, every button works, nothing is complained of."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from thalweg.reports import report

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed"),
]
PRESS_EVERYTHING = """<script>
const wait = () => new Promise((done) => setTimeout(done, 400));
(async () => {
  while (!document.documentElement.dataset.ready) await wait();
  await wait();
  for (const button of document.querySelectorAll("button:not(:disabled)")) { button.click(); await wait(); }
  for (const button of document.querySelectorAll("button.toggle, [data-axis=tokens]")) { button.click(); await wait(); }
  window.dispatchEvent(new Event("beforeprint")); await wait();
  window.dispatchEvent(new Event("afterprint")); await wait();
  document.documentElement.dataset.pressed = "true";
})();
</script>"""


def rendered(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the document as the browser has it after its scripts ran, and what the console said."""
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
        "--window-size=1280,9000", "--virtual-time-budget=60000", "--enable-logging=stderr", "--v=0", "--dump-dom",
        page.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [make_run(name="<b>first</b>", seed=0, spike=1_800), make_run(name="second", seed=1, tokens=False)]
    return report(runs, tmp_path_factory.mktemp("browser") / "report.html")


def test_every_figure_is_drawn_without_a_word_in_the_console(page: Path, tmp_path: Path) -> None:
    document, console = rendered(page, tmp_path)
    assert console == []
    assert 'data-ready="true"' in document and '<p id="unsupported" role="status" hidden' in document
    places = len(re.findall(r'class="plot"', document))
    figures = len(re.findall(r'class="canvas[^"]*js-plotly-plot', document))
    assert places == figures > 10
    assert "<b>first" not in document


def test_every_button_can_be_pressed_and_the_page_printed(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    open_page = tmp_path / "open.html"
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    open_page.write_text(without_policy.replace("</body>", PRESS_EVERYTHING + "</body>"), encoding="utf-8")
    document, console = rendered(open_page, tmp_path / "profile")
    assert console == []
    assert 'data-pressed="true"' in document and "Not along tokens" in document
