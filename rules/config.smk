"""Say where config/config.yaml is wrong: Snakemake's own error names neither file nor line."""

import sys
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError

CONFIG = Path("config/config.yaml")
try:
    if CONFIG.exists():
        load_configfile(CONFIG)
except (WorkflowError, OSError, ValueError, RecursionError) as err:
    sys.exit(f"{CONFIG}: {err.__context__ or err}")
