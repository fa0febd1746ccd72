"""The commands of the autoscaler and its fleet."""
