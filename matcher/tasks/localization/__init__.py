"""Localization: where a photograph was taken, in a model that COLMAP made of others."""
