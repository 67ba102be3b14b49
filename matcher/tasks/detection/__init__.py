"""Detection: one image in, boxes with the names of what is in them out."""
