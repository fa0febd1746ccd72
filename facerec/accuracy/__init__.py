"""How well the recogniser tells people apart: scored pairs, reports, calibration and open sets."""
