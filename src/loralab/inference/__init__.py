"""Trained models at work: classify, export, average."""
