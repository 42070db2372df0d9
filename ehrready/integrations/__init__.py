"""Bridges to other tools' own formats; each is imported only when it is asked for."""
