"""What a model gives in production: its predictions as integers of a profile, what can be told from them, and their course."""

#: Format of files that hold predictions, as in the ledger.
FORMAT = "predictions"
#: Before a class that a label tells, so that a class called 1 is no outcome.
LABEL = "class "
