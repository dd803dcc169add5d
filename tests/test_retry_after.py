"""When a server says to come back, as it says it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devsynth_providers.providers.failures import LONGEST_S, retry_after_s


def test_a_date_from_a_server_without_a_clock_is_measured_by_ours() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    assert retry_after_s({"retry-after": soon}) == pytest.approx(600, abs=60)
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_whatever_it_says_is_a_time_that_can_be_waited_or_nothing(after: str, after_ms: str, date: str) -> None:
    told = retry_after_s({"retry-after": after, "retry-after-ms": after_ms, "date": date})
    assert told is None or 0 <= told <= LONGEST_S


@given(st.floats().map(str) | st.integers().map(str))
def test_whatever_number_it_says_too(number: str) -> None:
    for header in ("retry-after", "retry-after-ms"):
        told = retry_after_s({header: number})
        assert told is None or 0 <= told <= LONGEST_S
