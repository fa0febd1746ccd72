"""What becomes of a delivered message: retries within the delivery, stale tasks, and the driver of the use cases."""
