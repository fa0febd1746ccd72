"""Whether a client keeps up with a speed."""

import pytest

from facerec.web.pace import CREDIT_SECONDS, Pace


def test_bytes_pay_for_time() -> None:
    """At the speed itself nothing is owed, at half of it half of the time."""
    level, slow = Pace(100, 0), Pace(100, 0)
    for second in range(1, 61):
        level.pay(100, second)
        slow.pay(50, second)
    assert level.behind(60) == pytest.approx(0)
    assert slow.behind(60) == pytest.approx(30)


def test_nobody_pays_for_long_ahead() -> None:
    """However much comes at once."""
    pace = Pace(100, 0)
    pace.pay(10**9, 5)
    assert pace.behind(5) == -CREDIT_SECONDS
    assert pace.behind(5 + CREDIT_SECONDS) == 0


def test_who_was_slow_can_catch_up() -> None:
    """A debt is paid like the time that passes."""
    pace = Pace(100, 0)
    pace.pay(500, 20)
    assert pace.behind(20) == 15
    pace.pay(2_500, 20)
    assert pace.behind(20) == -10


def test_what_is_excused_is_not_owed() -> None:
    """And a new beginning owes nothing."""
    pace = Pace(100, 0)
    pace.excuse(7)
    assert pace.behind(10) == 3
    pace.restart(10)
    assert pace.behind(10) == 0
