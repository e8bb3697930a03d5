"""Pixels in, batches out: data sets as random access to images, and the input pipeline."""
