"""Reading and writing of image files, for the whole package."""
