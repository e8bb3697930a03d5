"""The metrics, one family in each file: from uint8 images to a value for each image or set."""
