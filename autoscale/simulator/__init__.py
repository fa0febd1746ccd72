"""A simulated queue and fleet, on which the production decider and published rules are measured."""
