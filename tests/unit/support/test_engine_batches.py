"""How `benchmarks.engine` puts photos together."""

from io import BytesIO

import pytest
from PIL import Image

from tests.support.measurements.photos import grouped


def photo(megapixels: float) -> bytes:
    """Return a picture of about that size."""
    stream = BytesIO()
    Image.new("1", (1000, int(megapixels * 1000))).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("megapixels", "sizes"),
    [
        ([0.01] * 10, [5, 5]),  # and not a batch of two among the medians
        ([0.01] * 16, [8, 8]),
        ([0.01] * 3, [3]),
        ([3.0] * 8, [2, 2, 2, 2]),  # as a worker's batch, which ends at eight megapixels
        ([9.0, 9.0], [1, 1]),
        ([], []),
    ],
)
def test_batches_are_even_and_no_larger_than_a_workers(megapixels: list[float], sizes: list[int]) -> None:
    """At most eight photos and eight megapixels, in their order."""
    photos = [photo(size) for size in megapixels]
    batches = grouped(photos, 8, 8.0)
    assert [len(batch) for batch in batches] == sizes
    assert [photo for batch in batches for photo in batch] == photos
