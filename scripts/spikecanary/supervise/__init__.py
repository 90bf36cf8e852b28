"""Child processes: run, watched, measured, ended."""
