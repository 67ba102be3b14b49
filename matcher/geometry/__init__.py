"""Where points are: pixels, cameras, epipolar lines and robust estimates of them."""
