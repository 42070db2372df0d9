"""The model contract: what a model needs of the data, of the EHR and of itself once it runs, in one YAML file.

The contract compiles to a rule pack (:mod:`ehrready.contract.rules`), so that ``check --contract`` has no second way of
measuring or judging; ``integration`` and ``monitor`` read the same file.
"""

from __future__ import annotations

from ehrready.contract.model import Cohort, Contract, Deployment, Feature, Label, Output, Owner, WriteBack
from ehrready.contract.parser import load, parse

__all__ = ["Cohort", "Contract", "Deployment", "Feature", "Label", "Output", "Owner", "WriteBack", "load", "parse"]
