"""The examples of all schedules live beside their benchmark; the tests import them from there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
