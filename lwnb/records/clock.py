"""Wall time, and how busy other processes kept the machine meanwhile."""

import os
import time
from datetime import UTC, datetime

import psutil

BUSY = 0.1
"""Share of the machine's processor time taken by others from which on it was busy."""


class Clock:
    """Runs from its making on, for this process."""

    def __init__(self):
        self.started, self.began = datetime.now(UTC), time.perf_counter()
        self.before = self._busy()

    @staticmethod
    def _busy() -> float:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        return sum(machine[:3]) - own.user - own.system  # user, nice, system: in seconds since boot

    def read(self) -> dict:
        """Start, seconds, and the share of the machine's processor time that others took."""
        seconds = time.perf_counter() - self.began
        others = max(0.0, self._busy() - self.before) / (seconds * (os.cpu_count() or 1))
        begun = self.started.isoformat(timespec="seconds")
        return {"started": begun, "wall_seconds": seconds, "other_load": others}
