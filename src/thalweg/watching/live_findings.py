"""What is critical is said while the run goes on: now and then the watch's own thread diagnoses the record so far.

The first look comes after 20 seconds. Each next one waits until all looks together are at most a two-hundredth of the
time that has passed, and at least 10 seconds. A kind is said once. The rules read the file, never the live model.
"""

import time
from collections.abc import Callable
from pathlib import Path

from thalweg.diagnosis.findings import Finding
from thalweg.watching.journal import Journal

FIRST = 20.0
LEAST = 10.0
SHARE = 1 / 200


def say_findings(journal: Journal, path: Path) -> None:
    """From now on the journal's thread looks for critical findings: each is an event of the run and a warning."""

    def tell(finding: Finding) -> None:
        where = f" in {finding.where}" if finding.where else ""
        journal.event(
            "finding",
            step=finding.first_step,
            severity="critical",
            source="diagnosis",
            finding=finding.kind,
            title=finding.title,
            where=finding.where,
            remedy=finding.remedy,
        )
        journal.warn(
            f"{finding.title}{where} ({finding.kind}, {finding.confidence:.0%} sure). {finding.remedy}"
        )

    journal.look = LiveFindings(path, tell).look


class LiveFindings:
    """Looks at a run's own record, in the thread that writes it.

    Args:
        path: the run file.
        tell: called once for each kind of critical finding.
        clock: seconds, for when to look; another one in tests.
    """

    def __init__(
        self, path: Path, tell: Callable[[Finding], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._tell, self._clock = path, tell, clock
        self._began = clock()
        self._next = self._began + FIRST
        self._spent = 0.0
        self._told: set[str] = set()

    def look(self) -> None:
        """Diagnose if it is time to.

        Raises:
            Exception: whatever goes wrong in it; the thread that calls records that, and calls no more.
        """
        now = self._clock()
        if now < self._next:
            return
        before = time.thread_time()
        for finding in self._critical():
            if finding.kind not in self._told:
                self._told.add(finding.kind)
                self._tell(finding)
        self._spent += time.thread_time() - before
        self._next = max(now + LEAST, self._began + self._spent / SHARE)

    def _critical(self) -> list[Finding]:
        from thalweg.diagnosis import diagnose

        return [finding for finding in diagnose(self._path).flat() if finding.severity == "critical"]
