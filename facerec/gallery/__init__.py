"""Who is enrolled: enrolment, the gallery in memory and on disk, archives and rebuilds."""
