"""`explain`: what a kind of trouble is, how it is told from its look-alikes, what to do, and the paper."""

from thalweg.core.errors import UsageError
from thalweg.diagnosis.contracts import Rule
from thalweg.diagnosis.diagnosing import load_rules


def kinds() -> list[str]:
    """Names of all rules."""
    return sorted(load_rules())


def explain(kind: str) -> Rule:
    """The rule of a kind, with its card and page.

    Raises:
        UsageError: there is no such kind; the message names close ones.
    """
    import difflib

    rules = load_rules()
    if kind in rules:
        return rules[kind]
    close = difflib.get_close_matches(kind, rules, n=3, cutoff=0.4)
    hint = f": did you mean {', '.join(close)}?" if close else "; thalweg explain lists all"
    raise UsageError(f"no rule is named {kind!r}{hint}")
