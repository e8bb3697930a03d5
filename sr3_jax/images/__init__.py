"""Image files, and what is in them: the one reader and the one writer."""
