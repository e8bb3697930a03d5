"""The human study: which of two images is real?"""
