"""Why 94.8 became 86.9: calibration, fragility, wrong labels, copies of training rows and drift of a trained run."""
