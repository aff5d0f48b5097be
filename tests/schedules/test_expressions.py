"""Schedules from text: what is understood, what is refused, and that nothing is ever evaluated."""

import subprocess
import sys
from pathlib import Path

import pytest

import thalweg as tw
from thalweg.core.errors import UsageError

s = tw.schedules


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("wsd(peak=3e-4,total=24000,decay=0.2)", s.WSD(peak=3e-4, total=24000, decay=0.2)),
        ("WSD(peak=3e-4, total=24_000)", s.WSD(peak=3e-4, total=24000)),
        (" tw.schedules.WSD(peak=3e-4, total=24000) ", s.WSD(peak=3e-4, total=24000)),
        ("wsd_s(peak=1, ends=[5, 10])", s.WSDS(peak=1, ends=(5, 10))),
        ("qsr(rate=rex(peak=1, total=9), alpha=2)", s.QuadraticSync(rate=s.REX(peak=1, total=9), alpha=2)),
        ("rex(peak=1, total=9).warmed(3, shape='cosine')", s.REX(peak=1, total=9).warmed(3, shape="cosine")),
        ("rex(peak=1, total=9) * 0.5", s.REX(peak=1, total=9) * 0.5),
        ("2 * rex(peak=1, total=9)", s.REX(peak=1, total=9) * 2),
        ("rex(peak=1, total=9).then(constant(peak=-1.0))", s.REX(peak=1, total=9).then(s.Constant(peak=-1))),
        ("one_cycle(peak=1, total=9).momentum()", s.OneCycle(peak=1, total=9).momentum()),
        ("from_table([1, 2], steps=[0, 5])", s.from_table([1, 2], steps=[0, 5])),
        ("cosine_restarts(peak=1, period=3)", s.CosineRestarts(peak=1, period=3)),
        ("CosineRestarts(peak=1, period=3)", s.CosineRestarts(peak=1, period=3)),
    ],
)
def test_an_expression_is_the_schedule_it_names(text: str, meant: s.Schedule) -> None:
    assert s.parse(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no schedule"),
        ("wsd", "neither a value nor a schedule"),
        ("3", "3 is no schedule"),
        ("wsd(peak=3e-4, total=24000", "is no schedule"),
        ("wds(peak=3e-4, total=24000)", "no schedule is called wds; did you mean wsd?"),
        ("xyzzy(peak=1)", "there are batch_ramp"),
        ("wsd(peak=3e-4, total=0)", "total=0"),
        ("wsd(peak=3e-4, total=10, decays=0.2)", "decays"),
        ("wsd(3e-4, total=10)", "positional"),
        ("wsd(total=10)", "peak"),
        ("wsd(**{'peak': 1})", "without"),
        ("wsd(peak=1 + 1, total=10)", "neither a value nor a schedule"),
        ("wsd(peak=1, total=10).value(3)", "no way to join"),
        ("wsd(peak=1, total=10).__class__(peak=2, total=3)", "no way to join"),
        ("__import__('os').system('true')", "no way to join"),
        ("(lambda: 1)()", "no way to join"),
        ("[wsd(peak=1, total=2) for _ in (1,)]", "neither a value nor a schedule"),
        ("from_callable(3)", "no schedule is called from_callable"),
        ("wsd(peak=open('x'), total=10)", "no schedule is called open"),
        ("rex(peak=1, total=9) + 1", "neither a value nor a schedule"),
        ("(" * 300 + "1" + ")" * 300, "is no schedule"),
        ("rex(peak=1, total=9).then(3)", "only schedules follow each other"),
        ("qsr(rate=3, alpha=1)", "rate=3 should be a schedule"),
        ("from_table(['a'])", "list of numbers"),
        ("wsd_s(peak=1, ends=3)", "ends=3 should be a list"),
        ("rex(peak=1, total=9).data()", "no way to join"),
    ],
)
def test_what_is_no_schedule_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        s.parse(text)
    assert said in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("count", [700, 3_000])
def test_an_expression_nested_too_deeply_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match="rex"):
        s.parse("rex(peak=1, total=9)" + ".warmed(1)" * count)


def test_nothing_of_it_needs_torch() -> None:
    script = """
import sys
sys.modules["torch"] = None
import thalweg as tw
for name in tw.schedules.__all__:
    getattr(tw.schedules, name)
schedule = tw.schedules.parse("wsd(peak=1e-3, total=100).warmed(5)")
class Optimizer: param_groups = [{"lr": 0.1}]
schedule.bind(Optimizer()).step()
schedule.values()
del sys.modules["torch"]
print([m for m in ("torch", "scipy", "pandas", "plotly") if m in sys.modules])
"""
    source = str(Path(tw.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": source, "PATH": ""},
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr
