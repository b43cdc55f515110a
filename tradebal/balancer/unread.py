"""Tells how long a shard's oldest unread byte has waited, though a FIFO keeps no times."""

from __future__ import annotations

from collections import deque

_MARKS = 128


class UnreadAge:
    """One shard's age of what is unread, from looks at how many bytes came and how many of them wait.

    Each look notes how long the stream was. What is still unread of a length noted earlier is at least as old as
    that note, so an age is told to within the time between two looks, and is never too high.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        """(time, the stream's length then), of lengths that aren't wholly read."""

    def look(self, now: float, length: int, unread: int) -> float:
        """Return the age in seconds; `length` is the stream's in bytes since it began, `unread` how many of these wait.

        `now` is time.monotonic().
        """
        marks = self._marks
        while marks and marks[0][1] <= length - unread:
            marks.popleft()
        age = now - marks[0][0] if marks else 0.0
        if unread and (not marks or marks[-1][1] < length):
            marks.append((now, length))
            if len(marks) > _MARKS:
                # Of a long wait, the age's relative error stays small with fewer notes.
                self._marks = deque(list(marks)[::2])
        return age
