"""Training data: sources of `matcher.structures.ImagePair`."""
