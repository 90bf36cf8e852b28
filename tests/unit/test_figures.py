"""Figures of a sorting, and of the window for which a recording was stopped."""

import pandas as pd
import pytest
from PIL import Image
from spikeinterface.core import create_sorting_analyzer
from spikeinterface.generation import generate_ground_truth_recording

from spikecanary import outputs, sentinel
from spikecanary.config import Config
from spikecanary.outputs import figures
from spikecanary.sentinel import Window
from workbench import N_UNITS, stopped

CONFIG = Config()


@pytest.mark.parametrize("n", N_UNITS)
def test_figures(made, n):
    folder, task, _ = made
    place = folder / str(n)
    figures.run(task, CONFIG.analysis, CONFIG.curation, place, n_pages=2)
    of_all = {"probe", "signal_map", "traces_filtered", "traces_raw"}
    of_units = {"amplitudes", "drift", "metrics", "templates", "raster"} if n else set()
    of_units |= {"autocorrelograms", "crosscorrelograms"} if n else set()
    drawn = list((place / "figures").glob("*.png"))
    assert {path.stem for path in drawn} == of_all | of_units
    pages = list((place / "figures/units").iterdir())
    assert len(pages) == min(n, 2)
    for path in [*drawn, *pages]:
        with Image.open(path) as picture:
            assert len(picture.convert("L").getcolors(10_000)) > 10, f"{path} is empty"


def test_templates_of_one_channel_are_drawn(tmp_path, caplog):
    recording, sorting = generate_ground_truth_recording(
        durations=[5.0], num_channels=1, num_units=2, seed=0
    )
    analyzer = create_sorting_analyzer(sorting, recording, sparse=False)
    analyzer.compute(["random_spikes", "waveforms", "templates"])
    ids = [str(unit) for unit in analyzer.unit_ids]
    units = pd.DataFrame({"depth_um": 0.0, "label": "good", "reasons": ""}, index=ids)
    draw = figures.draw_units(analyzer, units, CONFIG.curation, 0)["templates"]
    figures.save(draw, "templates", tmp_path / "templates.png", "uV")
    assert (tmp_path / "templates.png").exists()
    assert caplog.text == ""


def test_canary_figure(made, tmp_path):
    _, task, _ = made
    window = Window(start_s=3.0, end_s=6.0, why="leading", ended="no spikes")
    record = stopped("biological").model_copy(update={"windows": [window]})
    sentinel.write_record(tmp_path / "canary.json", record)
    path = tmp_path / outputs.CANARY_FIGURE
    figures.draw_canary(task, CONFIG.analysis, tmp_path / "canary.json", path)
    with Image.open(path) as picture:
        assert picture.width > 600
    gone = task.model_copy(update={"row": task.row.model_copy(update={"paths": ("/no/such",)})})
    figures.draw_canary(gone, CONFIG.analysis, tmp_path / "canary.json", path)
    with Image.open(path) as picture:
        assert picture.height < 300
