"""The metrics, one family a file: uint8 images in, a value an image (or a set) out."""
