"""Image files to what the network takes."""
