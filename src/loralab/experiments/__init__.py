"""Experiments of many runs: plans over one Config, their execution, and hyperparameter search."""
