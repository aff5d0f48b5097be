"""A diagnosis for reading: as text for a terminal, as HTML for a notebook."""

from thalweg.diagnosis.findings import Diagnosis


def as_text(diagnosis: Diagnosis) -> str:
    """Findings with their evidence and remedy, then what could not be judged."""
    raise NotImplementedError


def as_html(diagnosis: Diagnosis) -> str:
    """The same as a fragment of HTML in which nothing of the log is markup."""
    raise NotImplementedError
