"""From a class label to a video."""
