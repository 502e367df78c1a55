"""Rows → figures: the only modules with ink."""
