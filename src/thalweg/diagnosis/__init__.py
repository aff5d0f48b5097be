"""What went wrong in a run, from its record: rules over signals, findings with evidence, and what can't be judged."""

from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.diagnosing import diagnose
from thalweg.diagnosis.explaining import explain, kinds
from thalweg.diagnosis.findings import Diagnosis, Evidence, Finding, NotEvaluable, Plot
from thalweg.diagnosis.view import Curve, RunView

__all__ = [
    "Curve",
    "Diagnosis",
    "Evidence",
    "Finding",
    "NotEvaluable",
    "Page",
    "Plot",
    "Rule",
    "RunView",
    "SignalQuery",
    "diagnose",
    "explain",
    "kinds",
]
