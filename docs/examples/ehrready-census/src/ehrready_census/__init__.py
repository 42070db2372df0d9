"""Ward census files for ehrready: an example of a package that adds to it."""
