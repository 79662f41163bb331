"""What happens to records that cannot be read: the run stops, or they are counted and left out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

# Values of the field data_errors.
ERROR_POLICIES = ("stop", "skip")
LONE_SURROGATE = "half a surrogate pair, which UTF-8 cannot encode"

_log = logging.getLogger(__name__)


class RecordErrors:
    """Takes the reports of bad records, and counts those that are left out."""

    def __init__(
        self,
        policy: str = "stop",
        remedy: str = "set data_errors=skip to leave out such records",
        *,
        logged: int = 3,
    ) -> None:
        """See `report`.

        Args:
            policy: "stop" or "skip".
            remedy: the end of the message with "stop".
            logged: how many records of a reason are logged one by one.

        Raises:
            ValueError: another policy.
        """
        if policy not in ERROR_POLICIES:
            raise ValueError(
                f"data_errors is {policy!r}: choose one of {', '.join(ERROR_POLICIES)}"
            )
        self.policy = policy
        # How many records of each reason were left out.
        self.counts: dict[str, int] = {}
        self._remedy, self._logged = remedy, logged

    def report(self, place: str, reason: str, detail: str = "") -> None:
        """Stops at a bad record, or counts it and logs the first few of each reason.

        Args:
            place: its location: "path:line", or "path, row n" (record n, byte n).
            reason: a short phrase, the same for all records of its kind.
            detail: the same at more length, for messages.

        Raises:
            ValueError: the policy is "stop"; a message of one line.
        """
        what = f"{place}: {' '.join((detail or reason).split())}"
        if self.policy == "stop":
            raise ValueError(f"{what}; {self._remedy}")
        count = self.counts[reason] = self.counts.get(reason, 0) + 1
        if count <= self._logged:
            _log.warning("%s; left out", what)
        elif self._logged and count == self._logged + 1:
            _log.warning("more records are left out for the same reason: %s", reason)

    def merge(self, counts: Mapping[str, int]) -> None:
        """Adds the counts of another process."""
        for reason, count in counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count


def check_text(text: Any, place: str, errors: RecordErrors, field: str = "") -> str | None:
    """A text that can be tokenised; None, and a report, for any other value.

    Args:
        text: the value.
        place: location of its record.
        errors: takes the report.
        field: the name under which the record holds the text, for messages.

    Raises:
        ValueError: it cannot be tokenised, and the policy is "stop".
    """
    under = f' under "{field}"' if field else ""
    if not isinstance(text, str):
        kind = "" if text is None else f": the value is of type {type(text).__name__}"
        errors.report(place, "not a text", f"no text{under}{kind}")
    elif not text.strip():
        errors.report(place, "empty text", f"the text{under} is empty")
    elif "\0" in text:
        where = text.index("\0") + 1
        errors.report(place, "NUL character", f"the text{under} has a NUL, character {where}")
    elif has_lone_surrogate(text):
        errors.report(place, "lone surrogate", f"the text{under} has {LONE_SURROGATE}")
    else:
        return text
    return None


def has_lone_surrogate(text: str) -> bool:
    """Whether a text holds half a surrogate pair, which no encoding can write."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
