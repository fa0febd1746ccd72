"""The counters of the status message."""

from concurrent.futures import ThreadPoolExecutor

from facerec.edge.counters import Counters


def test_counters_show_every_name_also_those_that_are_zero() -> None:
    """So that a status message always has the same fields."""
    counters = Counters()
    counters.add("frames")
    counters.add("bytes", 4700)
    counts = counters.read()
    assert (counts["frames"], counts["bytes"], counts["dropped"]) == (1, 4700, 0)
    assert len(counts) == 12


def test_counters_lose_no_count_of_many_threads() -> None:
    """The source, the detector and the sender count at once."""
    counters = Counters()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: counters.add("frames"), range(2000)))
    assert counters.read()["frames"] == 2000
