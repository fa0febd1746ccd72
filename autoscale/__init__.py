"""The elastic fleet: how many EC2 instances the backlog needs, and getting there."""
