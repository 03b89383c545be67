"""The probes, one per file. Torch is imported inside their functions: `fitdoctor rule` reads these modules."""
