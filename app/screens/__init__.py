"""The page's screens, in the order of their tabs: one module, one script and one style each."""

from __future__ import annotations

from app.screens.duplicates import DuplicatesScreen
from app.screens.find import FindScreen
from app.screens.health import HealthScreen
from app.screens.label import LabelScreen
from app.screens.map import MapScreen
from app.screens.screen import Screen

SCREENS: tuple[type[Screen], ...] = (FindScreen, LabelScreen, MapScreen, DuplicatesScreen, HealthScreen)

__all__ = ["SCREENS", "Screen"]
