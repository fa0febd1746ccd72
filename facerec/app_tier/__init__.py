"""The use case of a worker: every operation of `facerec.operations`, from the request to its stored result."""
