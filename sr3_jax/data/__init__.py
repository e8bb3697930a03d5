"""Data sets, as random access to images, and the input pipeline that makes batches of them."""
