"""Reporters: a scorecard in, text or bytes out.  They see nothing but the scorecard."""
