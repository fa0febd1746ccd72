"""The gallery: enrolment, the cache in memory and on disk, archives and rebuilds."""
