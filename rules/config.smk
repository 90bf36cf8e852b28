"""Say where config/config.yaml is wrong: Snakemake's own error names neither file nor line."""

import json
import sys
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError

CONFIG = Path("config/config.yaml")
has_others = workflow.overwrite_configfiles or workflow.modifier.skip_configfile
if not CONFIG.is_file() and (not has_others or CONFIG.exists()):
    sys.exit(f"{CONFIG} cannot be read: create it, or name another (--configfile FILE)")
try:
    loaded = load_configfile(CONFIG) if CONFIG.exists() else {}
    json.dumps(loaded, default=str)  # an alias of itself has no end
    places = loaded.get("pathvars") or {}
    if not isinstance(places, dict) or not all(isinstance(each, str) for each in places.values()):
        sys.exit(f"{CONFIG}: pathvars: takes names and folders (results: folder), got {places!r}")
except (WorkflowError, OSError, ValueError, RecursionError) as err:
    sys.exit(f"{CONFIG}: {err.__context__ or err}")
