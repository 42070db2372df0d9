"""Code systems: their names, releases, grammars and check digits."""
