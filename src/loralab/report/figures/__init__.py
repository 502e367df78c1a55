"""Figures with matplotlib, each with its caption."""
