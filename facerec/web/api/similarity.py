"""Our similarity on the scales of other services, whose users compare it with a fixed value. Pure."""

import math


def scaled(similarity: float, threshold: float, at: float) -> float:
    """Return the similarity on a scale from 0 to 1 on which our `threshold` is the value `at`.

    It rises with the similarity, on two straight lines from 0 to `at` and from there to 1. It is at least `at` if, and
    only if, the similarity is at least the threshold: it is rounded down, to five decimals.
    """
    if similarity < threshold:
        value = at * similarity / threshold
    elif threshold < 1:
        value = at + (1 - at) * (similarity - threshold) / (1 - threshold)
    else:
        value = 1.0
    step = 100_000
    rounded = math.floor(value * step) / step
    # The division can round a similarity just below the threshold up to it, and the product one at it down.
    return max(rounded, at) if similarity >= threshold else min(rounded, math.floor((at * step) - 1) / step)
