"""What a job is made of: the files of its source, read one at a time, and the report about them."""
