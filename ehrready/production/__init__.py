"""What a model gives in production: its predictions as integers of a profile, what can be told from them, and their course."""

#: Format of files that hold predictions, as in the ledger.
FORMAT = "predictions"
