"""Classification: one image in, the most probable of known classes out."""
