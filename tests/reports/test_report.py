"""The page: complete, small, self-contained, and inert whatever names a run brings."""

import base64
import gzip
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from test_plotting import contrast

from thalweg.core.errors import ThalwegError, UsageError
from thalweg.record import Recorder, open_run
from thalweg.reports import page, report
from thalweg.reports.arrays import ArrayStore
from thalweg.reports.markup import Markup, element, join, script_json
from thalweg.reports.panels import PANELS, Panel

Maker = Callable[..., Path]


class Outline(HTMLParser):
    """Collects the elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._script: dict[str, str | None] | None = None
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._script = dict(attrs) if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts.append((self._script, data))
        else:
            self.words.append(data)

    def block(self, name: str) -> str:
        return "".join(text for attrs, text in self.scripts if attrs.get("id") == name)

    @property
    def data(self) -> dict:
        return json.loads(self.block("data"))

    def array(self, reference: tuple[int, int, str]) -> np.ndarray:
        at, count, kind = reference
        return np.frombuffer(gzip.decompress(base64.b64decode(self.block("arrays"))), f"<{kind}", count, at)


@pytest.fixture(scope="module")
def runs(make_run: Maker) -> tuple[Path, Path]:
    return make_run(name="first", seed=0, spike=1_800), make_run(name="second", seed=1, tokens=False)


@pytest.fixture(scope="module")
def outline(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Outline:
    return Outline(report(runs, tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------- content
def test_page_holds_every_figure_and_no_spike_is_lost(outline: Outline, runs: tuple[Path, Path]) -> None:
    panels = outline.data["panels"]
    names = {trace["name"] for panel in panels for trace in panel["traces"]}
    assert {
        "loss",
        "eval/loss",
        "lr",
        "grad/norm",
        "grad/norm_raw",
        "update/ratio",
        "time/step",
        "watch/cost",
    } <= names
    loss = open_run(runs[0])["loss"].values
    trace = next(t for p in panels for t in p["traces"] if t["name"] == "loss" and t["run"] == 0)
    drawn = outline.array(trace["y"])
    assert len(drawn) <= 2_000 and drawn.max() == loss.max() and drawn.min() == loss.min()
    steps, seconds, tokens = (outline.array(trace["x"][axis]) for axis in ("step", "time", "tokens"))
    assert steps[0] == 1 and steps[-1] == 3_000 and 0 <= seconds[0] < 1 and (np.diff(seconds) > 0).all()
    np.testing.assert_allclose(tokens, steps * 8_192)
    np.testing.assert_array_equal(drawn, loss[steps.astype(int) - 1])


def test_heat_maps_have_a_row_a_layer_for_each_run(outline: Outline, runs: tuple[Path, Path]) -> None:
    heat = [
        t
        for p in outline.data["panels"]
        if p["kind"] == "layers"
        for t in p["traces"]
        if t["name"] == "grad/norm"
    ]
    assert [t["run"] for t in heat] == [0, 1]
    matrix = open_run(runs[0]).matrix("grad/norm")
    assert heat[0]["layers"] == list(matrix.layers)
    z = outline.array(heat[0]["z"]).reshape(len(matrix.layers), -1)
    assert z.shape[1] == len(outline.array(heat[0]["x"]["step"])) == len(outline.array(heat[0]["x"]["time"]))
    np.testing.assert_array_equal(z.max(axis=1), np.nanmax(matrix.values, axis=0))


def test_vectors_and_matrices_are_drawn_or_said_to_be_recorded(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.tw") as recorder:
        recorder.declare("spectrum", shape=(3,))
        recorder.declare("overlap", shape=(2, 2))
        recorder.declare("map", shape=(20, 30))
        for step in range(5):
            recorder.log({"loss": 1.0, "spectrum": np.arange(3) + step, "overlap": np.eye(2)}, step)
        recorder.log({"map": np.ones((20, 30))}, 4)
    page = Outline(report(tmp_path / "run.tw", tmp_path / "report.html").read_text(encoding="utf-8"))
    traces = {t["name"]: t for p in page.data["panels"] if p["kind"] == "layers" for t in p["traces"]}
    assert traces["spectrum"]["layers"] == ["0", "1", "2"]
    assert traces["overlap"]["layers"] == ["0, 0", "0, 1", "1, 0", "1, 1"]
    drawn = page.array(traces["spectrum"]["z"]).reshape(3, 5)
    np.testing.assert_array_equal(drawn, np.arange(3)[:, None] + np.arange(5))
    np.testing.assert_array_equal(page.array(traces["spectrum"]["x"]["step"]), np.arange(5))
    words = " ".join(page.words)
    assert "Values of 2 by 2: a row for each index" in words
    assert "values of 20 by 30 are too many rows. run['map'].values has them" in words


def test_means_over_stretches_are_the_means_of_the_values(outline: Outline, runs: tuple[Path, Path]) -> None:
    trace = next(
        t for p in outline.data["panels"] for t in p["traces"] if t["name"] == "loss" and t["run"] == 1
    )
    expected = open_run(runs[1])["loss"].values.reshape(200, 15).mean(axis=1, dtype=float)
    np.testing.assert_allclose(outline.array(trace["mean"]["y"]), expected, rtol=1e-6)


def test_events_are_marked_in_their_place(outline: Outline) -> None:
    events = outline.data["events"][0]
    where = dict(zip(events["severity"], outline.array(events["x"]["step"]), strict=True))
    assert where["critical"] == 1_803 and where["warning"] == 1_800
    assert any("blocks.1.mlp.up.weight" in text for text in events["text"])


def test_cards_say_what_each_run_was(outline: Outline) -> None:
    words = " ".join(outline.words)
    for said in (
        "first",
        "second",
        "closed",
        "3,000",
        "1.24 % of the step (1.17 to 1.31 %)",
        "torch 2.13.0",
        "CPU, 2 cores",
    ):
        assert said in words, said
    assert "What differs" in words and "optimizer.lr" in words


def test_what_was_not_recorded_is_said_in_its_place(tmp_path: Path) -> None:
    with Recorder(tmp_path / "bare.tw", name="bare") as recorder:
        recorder.log({"loss": 1.0}, 1)
    words = " ".join(Outline(report(tmp_path / "bare.tw", tmp_path / "r.html").read_text()).words)
    for panel in PANELS:
        if panel.missing and panel.title != "Loss":
            assert f"{panel.missing[:1].upper()}{panel.missing[1:]}." in words
            assert panel.hint in words


def test_a_run_without_anything_still_makes_a_page(tmp_path: Path) -> None:
    Recorder(tmp_path / "empty.tw", name="nothing").close()
    outline = Outline(report(tmp_path / "empty.tw", tmp_path / "r.html").read_text())
    assert "No loss." in " ".join(outline.words)


def test_signals_that_no_figure_knows_get_their_own(tmp_path: Path) -> None:
    with Recorder(tmp_path / "own.tw") as recorder:
        for step in range(1, 9):
            recorder.log({"loss": 1.0, "user/temperature[0]": float(step), "G:odd/thing": 2.0}, step)
    data = Outline(report(open_run(tmp_path / "own.tw"), tmp_path / "r.html").read_text()).data
    alone = [[t["name"] for t in p["traces"]] for p in data["panels"]]
    assert ["user/temperature[0]"] in alone and ["G:odd/thing"] in alone


def test_parameter_groups_are_lines_and_a_total_stands_beside_its_layers(tmp_path: Path) -> None:
    with Recorder(tmp_path / "g.tw") as recorder:
        recorder.declare("hyper/beta1/group0", layer="group0")
        recorder.declare("odd/share/fc", layer="fc")
        recorder.extend(
            ["hyper/beta1/group0", "odd/share", "odd/share/fc"], [1, 2], [[0.9, 1, 2], [0.9, 1, 2]]
        )
    data = Outline(report(tmp_path / "g.tw", tmp_path / "r.html").read_text()).data
    kinds = [(p["kind"], t["name"]) for p in data["panels"] for t in p["traces"]]
    assert set(kinds) == {("lines", "hyper/beta1/group0"), ("lines", "odd/share"), ("layers", "odd/share")}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(10_000, 100), (1_000_000, 1), (1_000, 1_000)], ids=str)
def test_two_runs_of_a_million_points_make_at_most_six_megabytes(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    steps, signals = shape
    quantities = ("grad/norm", "update/ratio", "weight/norm", "units/dormant")
    layers = [(q, f"blocks.{i}.weight") for i in range(signals // 8) for q in quantities]
    names = [*(f"{q}/{layer}" for q, layer in layers), "loss"]
    names += [f"own/{i}" for i in range(signals - len(names))]
    random = np.random.default_rng(0)
    for run in (0, 1):
        with Recorder(tmp_path / f"{run}.tw") as recorder:
            for quantity, layer in layers:
                recorder.declare(f"{quantity}/{layer}", layer=layer)
            for start in range(0, steps, 10_000):
                values = random.lognormal(size=(min(10_000, steps), signals)).astype(np.float32)
                recorder.extend(names, np.arange(start, start + len(values)), values)
                recorder.flush(10)
    assert report([tmp_path / "0.tw", tmp_path / "1.tw"], tmp_path / "r.html").stat().st_size <= 6_000_000


def test_not_finite_values_are_gaps_and_counted(tmp_path: Path) -> None:
    with Recorder(tmp_path / "nan.tw") as recorder:
        for step in range(1, 51):
            recorder.log({"loss": float("nan") if step > 25 else float("inf") if step == 25 else 1.0}, step)
    outline = Outline(report(tmp_path / "nan.tw", tmp_path / "r.html").read_text())
    trace = outline.data["panels"][0]["traces"][0]
    y = outline.array(trace["y"])
    assert np.isinf(y).sum() == 1 and np.isnan(y).sum() == 25
    assert "26" in outline.words, "the table of numbers counts what was not finite"


def test_report_takes_a_run_a_path_or_several_and_replaces_an_earlier_page(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "folder" / "r.html"
    assert report(open_run(runs[0]), out) == out
    report([str(runs[0]), open_run(runs[1])], out)
    assert [run["label"] for run in Outline(out.read_text()).data["runs"]] == ["first", "second"]
    assert [p.name for p in out.parent.iterdir()] == ["r.html"], "no half-written file stays"
    with pytest.raises(UsageError, match="at least one run"):
        report([], out)
    with pytest.raises(ThalwegError):
        report(tmp_path / "none.tw", out)


def test_runs_of_one_name_are_told_apart(runs: tuple[Path, Path], tmp_path: Path) -> None:
    labels = [
        r["label"] for r in Outline(report([runs[0], runs[0]], tmp_path / "r.html").read_text()).data["runs"]
    ]
    assert all(label.startswith("first (") for label in labels)


# ------------------------------------------------------------------------------------------- safety
EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><!--",
    "\u2028\x1b[31m",
    "{{7*7}}${alert(3)}",
)


def test_names_that_hold_html_or_script_are_inert(tmp_path: Path) -> None:
    everything = "".join(EVIL)
    config = {everything: {everything: everything}, "list": [everything]}
    with Recorder(
        tmp_path / "evil.tw", name=everything, config=config, tags=EVIL, environment={"device": everything}
    ) as recorder:
        for step in range(1, 20):
            recorder.log({"loss": 1.0, **{f"x/{evil}": 2.0 for evil in EVIL}}, step)
        recorder.declare(f"grad/norm/{everything}", layer=everything)
        recorder.extend([f"grad/norm/{everything}"], [1, 2], np.ones((2, 1), dtype=np.float32))
        recorder.declare("y", unit=everything)
        recorder.log({"y": 1.0}, 21)
        recorder.event(everything, step=3, severity="warning", source=everything, **{everything: everything})
        recorder.set_meta("cost", {"share": everything, everything: 1.0})
    clean = Recorder(tmp_path / "clean.tw", name="clean")
    clean.log({"loss": 1.0}, 1)
    clean.close()
    text = report([tmp_path / "evil.tw", tmp_path / "clean.tw"], tmp_path / "r.html").read_text(
        encoding="utf-8"
    )
    outline = Outline(text)
    assert "alert(1)" in text and "alert(2)" in text, "the names are shown"
    assert not re.search(r"<script>\s*alert|<img|\x1b|\u2028", text)
    assert [attrs.get("id") for tag, attrs in outline.elements if tag == "script"] == [
        "data",
        "arrays",
        "plotly",
        None,
    ]
    assert not [a for _, attrs in outline.elements for a in attrs if a.startswith("on")]
    assert outline.data["runs"][0]["label"] != "", "the data block is whole"
    for character in "<>&":
        assert character not in outline.block("data")
    assert "<!--" not in text.replace(outline.block("plotly"), "")


def test_page_forbids_requests_and_foreign_scripts_and_names_no_address(outline: Outline) -> None:
    policy = next(attrs["content"] for tag, attrs in outline.elements if attrs.get("http-equiv"))
    assert (
        policy is not None
        and "default-src 'none'" in policy
        and "'unsafe-inline'" not in policy.split("style-src")[0]
    )
    own = next(text for attrs, text in outline.scripts if not attrs.get("id"))
    plotly = gzip.decompress(base64.b64decode(outline.block("plotly"))).decode("utf-8")
    assert page._hash(own) in policy and page._hash(plotly) in policy
    for tag, attrs in outline.elements:
        linked = [attrs[name] for name in ("src", "href", "action", "data", "srcset") if attrs.get(name)]
        assert all(str(link).startswith("#") for link in linked), (tag, linked)
    assert (
        "http" not in own
        and "@import" not in page._asset("page.css")
        and "url(" not in page._asset("page.css")
    )


def test_element_escapes_all_that_is_not_markup() -> None:
    assert element(
        "p", "<b>", Markup("<i></i>"), None, title='"x"', hidden=True, class_="a", data_n=1, id=None
    ) == ('<p title="&quot;x&quot;" hidden class="a" data-n="1">&lt;b&gt;<i></i></p>')
    assert join("&", 3) == "&amp;3"


def test_json_in_a_script_ends_nothing() -> None:
    text = script_json({"a": "</script><!--\u2028&"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"a": "</script><!--\u2028&"}
    with pytest.raises(ValueError):
        script_json(float("nan"))


# ------------------------------------------------------------------------------------------- parts
def test_store_keeps_equal_arrays_once_and_large_steps_exactly() -> None:
    store = ArrayStore()
    a = store.add(np.arange(5))
    b = store.add(np.arange(3) + (1 << 24) + 1)
    assert store.add(np.arange(5.0)) == a == (0, 5, "f4") and b == (24, 3, "f8")
    data = gzip.decompress(base64.b64decode(store.packed()))
    assert np.frombuffer(data, "<f8", 3, 24).tolist() == [16_777_217, 16_777_218, 16_777_219]


def test_a_panel_picks_by_role_and_by_name_without_its_key(make_run: Maker) -> None:
    specs = open_run(make_run(name="p", steps=20)).signals
    assert {s.name for s in Panel(title="", section="", about="", roles=("gradient norm",)).picks(specs)} == {
        "grad/norm",
        "grad/norm_raw",
    }
    layered = Panel(title="", section="", about="", kind="layers", names=("units/*",)).picks(specs)
    assert layered and all(s.layer and s.name.startswith("units/dormant/") for s in layered)


def test_every_panel_stands_beside_those_of_its_section() -> None:
    sections = [panel.section for panel in PANELS]
    changes = sum(a != b for a, b in itertools.pairwise(sections))
    assert changes == len(set(sections)) - 1


THEMES = re.findall(r"--page: [^}]*", (Path(page.__file__).parent / "assets" / "page.css").read_text())


@pytest.mark.parametrize("theme", THEMES[:2], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(theme: str) -> None:
    colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", theme))
    pairs = [(t, b) for t in ("text", "quiet", "link") for b in ("page", "card")]
    pairs += [
        ("text", "code"),
        ("on-accent", "accent"),
        ("warning", "warning-back"),
        ("critical", "critical-back"),
        ("note", "code"),
        ("text", "warning-back"),
    ]
    for text, back in pairs:
        assert contrast(colors[text], colors[back]) >= 4.5, (text, back)


def test_each_theme_is_the_same_wherever_it_is_written() -> None:
    light, dark, chosen_dark, printed = (re.sub(r"\s+", "", theme) for theme in THEMES)
    assert dark == chosen_dark and light == printed
