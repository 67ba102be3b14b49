"""Benchmarks: pose, homography and synthetic accuracy of matchers."""
