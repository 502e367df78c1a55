"""Error analysis of a trained run: calibration, robustness, label errors, near-duplicates, drift, token attributions."""
