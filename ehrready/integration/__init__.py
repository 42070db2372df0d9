"""Is the EHR ready for the model?  What its CapabilityStatement declares, held against what the contract needs."""
