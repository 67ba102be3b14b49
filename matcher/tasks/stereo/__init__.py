"""Stereo matching: two rectified images in, dense disparity and occlusion out."""
