"""Whole collections of image pairs: lists, crash-safe results, exports."""
