"""What is left to do: recordings, their waves and files; no rule."""

from spikecanary import gate, outputs, summary

# Where more is asked for than what is due, Snakemake is to see every recording.
WHOLE = any(
    re.match(
        r"--(touch|report|summary|detailed|delete|list|archive|dag|d3dag|rulegraph)"
        r"|-[knpq]*[tSD]",
        given,
    )
    for given in sys.argv[1:]
)


@functools.cache
def find_settled():
    """Return the recordings for which nothing is left to do, so that the DAG need not grow.

    None where somebody asks for more than what is due, for files by name, or imports this
    workflow: the summary's set of inputs would change, and it would run once too often.
    """
    asked = workflow.dag_settings
    forced = asked.forceall or asked.forcerun or asked.forcetargets or asked.batch
    own = Path(str(workflow.main_snakefile)).resolve().parent == FOLDER.parent
    if WHOLE or forced or asked.targets or not own or not workflow.is_main_process:
        return set()
    return {
        recording
        for recording in ROWS
        if reruns.is_settled(SETTINGS, find_task(recording), results_path(recording))
    }


@functools.cache
def find_waves():
    """Return the recordings of each wave."""
    left = [recording for recording in ROWS if recording not in find_settled()]
    return gate.make_waves(left, SETTINGS.gate.waves, without=LEFT)


def due_outputs(wildcards):
    """Return what rule all asks for.

    Where all is settled and summarized that is the table, which stands: Snakemake says that
    there is nothing to do, which it does not of a rule without inputs.
    """
    table, page = results_path("summary.tsv"), results_path("report.html")
    written = find_settled() == set(ROWS) != set() and summary.stands(table, METADATA)
    if written and page.exists() and page.stat().st_mtime >= table.stat().st_mtime:
        return SETTINGS.recordings
    # The waves by name: after a run with errors the summary stands, and would hide that
    # waves are missing.
    return [
        "<results>/report.html",
        "<results>/summary.tsv",
        *wave_tables(wildcards),
        *removed_files(),
    ]


def wave_tables(wildcards):
    """Return the tables of this run's waves."""
    return [f"<results>/waves/{wave}.tsv" for wave in find_waves()]


def removed_files():
    """Return files of recordings that were removed since their wave's table was written.

    Snakemake makes files that only other rules need anew if those have to run themselves.
    """
    found = []
    for wave, members in find_waves().items():
        if results_path("waves", f"{wave}.tsv").exists():
            found += [path for member in members for path in results_of(member)]
    return [path for path in found if not Path(PATHVARS.apply(path)).exists()]


def results_of(recording):
    """Return what there is to be of a recording, as far as its sentinel tells.

    A sort that stands does not want a sentinel that was removed: to have it made again
    would, to Snakemake, be an input that was updated.
    """
    folder, task = results_path(recording), find_task(recording)
    if not (folder / "canary.json").exists():
        stands = reruns.sort_stands(task, folder)
        return [] if stands else [f"<results>/{recording}/canary.json"]
    if reruns.canary_is_due(SETTINGS, task, folder) or not may_proceed(recording):
        return []
    return made_of(recording)


def made_of(recording):
    """Return the files of a recording that is sorted."""
    named = [outputs.FILES[name] for name in outputs.wanted(SETTINGS.outputs)]
    return [f"<results>/{recording}/{name}" for name in ["sort.json", *named]]


def newly_settled(wildcards):
    """Return the records of settled recordings that the summary does not know yet."""
    table = results_path("summary.tsv")
    if not table.exists():
        return []
    written = table.stat().st_mtime
    return [
        str(path)
        for path in summary.changed_since(written, results_path(), find_settled())
    ]


def wave_sentinels(wildcards):
    """Return the sentinels of one wave."""
    return [
        f"<results>/{recording}/canary.json"
        for recording in find_waves()[wildcards.wave]
    ]


def wave_results(wildcards):
    """Return what is to be made of a wave's recordings.

    Of those that proceed, or are forced, the sort's record and the outputs; of those that
    are stopped for a biological reason, the figure that shows it. A dry run cannot pass the
    checkpoint: it plans with the sentinels that stand.
    """
    members = find_waves()[wildcards.wave]
    if workflow.dryrun:
        passed = {member for member in members if may_proceed(member)}
        silent = {member for member in members if is_silent(member)}
    else:
        table = Path(checkpoints.gate.get(wave=wildcards.wave).output.table)
        passed, silent = gate.proceeding(table), gate.stopped_for_biology(table)
    passed.update(SETTINGS.canary.force)
    drawn = silent - passed if "figures" in SETTINGS.outputs else set()
    return [path for each in members if each in passed for path in made_of(each)] + [
        f"<results>/{each}/{outputs.CANARY_FIGURE}" for each in members if each in drawn
    ]


def may_proceed(recording):
    """Return whether a plan counts a recording as sorted: proceeds, or is tested again."""
    folder = results_path(recording)
    task = find_task(recording)
    try:
        due = reruns.canary_is_due(SETTINGS, task, folder)
        return due or sentinel.read_record(folder / "canary.json").verdict == "proceed"
    except sentinel.RecordError:  # its gate will say so
        return True


def is_silent(recording):
    """Return whether a plan counts a recording as stopped for a biological reason."""
    folder = results_path(recording)
    if may_proceed(recording):
        return False
    failure = sentinel.read_record(folder / "canary.json").failure
    return failure is not None and failure.category == "biological"
