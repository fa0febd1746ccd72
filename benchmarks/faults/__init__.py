"""Faults injected into the real system while clients upload: what is lost, what is wrong, what is done twice."""
