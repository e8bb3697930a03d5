"""The web page of `sr3 serve`."""
