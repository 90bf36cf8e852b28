"""Spike Canary: prove that a recording can be sorted before spending the hours.

The package that the scripts of the Snakemake rules import. It knows nothing of
Snakemake. Each module is one idea and imports only those above it in the list of
``docs/internals.md``.
"""

__version__ = "1.0.0"
