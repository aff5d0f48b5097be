"""Pictures of each kind of trouble and of health: real small runs, thinned, a JSON file a kind."""

import json
from importlib.resources import files
from typing import Any


def picture_of(kind: str) -> dict[str, Any] | None:
    """``{"sick": {"run", "signals": {name: [steps, values]}, "marks"}, "healthy": {...}}``; None if there is none."""
    file = files("thalweg.diagnosis.pictures").joinpath(f"{kind}.json")
    if not file.is_file():
        return None
    picture: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return picture
