"""What the view of the fleet shows: the queue, the autoscaler's records, and the uploads of this web instance."""
