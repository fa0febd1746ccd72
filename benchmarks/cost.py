"""The cost of 1 000 photos on Lambda and on EC2, and of 1 000 frames of a device, as the tables of docs/cost.md.

    python -m benchmarks.cost

It calls nothing: the prices and the formula are in `tests.support.measurements.cost`. The last line is one JSON object:
from how many photos an hour EC2 is cheaper, evenly spread and in bursts.
"""

import json

from tests.support.measurements.cost import ARM64, BURST, FLEET, MEASURED, SPOT, X86, crossing, device_table, table


def main() -> None:
    """Print the tables and where they cross."""
    crossings = {}
    for name, at_once in (("steady", 1), ("bursts", BURST)):
        print("\n".join([f"{name}: {at_once} at once", *table(at_once), ""]))
        for tier, prices in (("on_demand", X86), ("against_arm64", ARM64), ("spot", SPOT)):
            crossings[f"{name}_{tier}"] = crossing(at_once, MEASURED, FLEET, prices)
    print("\n".join(["a device", *device_table(), ""]))
    print(json.dumps({name: None if photos is None else round(photos) for name, photos in crossings.items()}))


if __name__ == "__main__":
    main()
