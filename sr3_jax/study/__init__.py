"""The human study, in which people tell which of two images is real."""
