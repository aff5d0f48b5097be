"""What goes beside an optimizer: so far, schedules as torch's own schedulers."""

from typing import TYPE_CHECKING

from thalweg.core.lazy import attach

if TYPE_CHECKING:
    from thalweg.optim.lr_schedulers import ScheduledRate as ScheduledRate
    from thalweg.optim.lr_schedulers import as_lr_scheduler as as_lr_scheduler
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "ScheduledRate": "thalweg.optim.lr_schedulers",
            "as_lr_scheduler": "thalweg.optim.lr_schedulers",
        },
    )
