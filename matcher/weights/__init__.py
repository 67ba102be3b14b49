"""Weights: names to files, downloads, checkpoints and their checks."""
