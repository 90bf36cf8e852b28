"""Say where config/config.yaml is wrong: Snakemake's own error names neither file nor line."""

import json
import sys
import traceback
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.pathvars import Pathvars

CONFIG = Path("config/config.yaml")
has_others = workflow.overwrite_configfiles or workflow.modifier.skip_configfile
if not CONFIG.is_file() and (not has_others or CONFIG.exists()):
    sys.exit(f"{CONFIG} cannot be read: create it, or name another (--configfile FILE)")
try:
    loaded = load_configfile(CONFIG) if CONFIG.exists() else {}
    json.dumps(loaded, default=str)  # an alias of itself has no end
    if not isinstance(places := loaded.get("pathvars") or {}, dict):
        sys.exit(f"{CONFIG}: pathvars: takes names and folders (results: folder), got {places!r}")
    Pathvars.from_config(loaded)
except (WorkflowError, OSError, ValueError, RecursionError) as err:
    cause = err.__context__ or err
    *_, (frame, _) = traceback.walk_tb(cause.__traceback__)
    mark = getattr(frame.f_locals.get("node"), "start_mark", "")  # of a date that is none
    hint = ": save it as UTF-8 text" if isinstance(cause, UnicodeDecodeError) else ""
    sys.exit(f"{CONFIG}: {cause}{mark}{hint}")
