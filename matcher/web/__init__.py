"""A web page for one pair of images."""
