"""Adapters to other packages of the field, one file each."""
