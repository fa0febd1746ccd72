"""A simulated queue and fleet, on which the very controller of production and published rules are measured."""
