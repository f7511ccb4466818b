"""The columns that say how far models of any origin are from an intact one."""

from __future__ import annotations

from layerimp.fidelity import Copying, Fidelity, Generation, Spread
from layerimp.report.model_comparison import figures
from layerimp.report.tables.fidelity_figures import FIGURES, figures_note

SPREAD = Spread(mean=0.25, stderr=0.0123, median=0.1, p90=0.5, p99=1.5, max=3.0)
COPYING = Copying(accuracy=0.5, intact=0.75, divergence=0.3, agreement=0.5, stderr=0.03)


def measured(loops: float | None) -> Fidelity:
    generation = Generation(
        same_tokens=5, empty=0, loops=loops, prompts=25, intact_empty=0.25, intact_loops=loops, samples=[]
    )
    return Fidelity(
        predictions=8,
        divergence=SPREAD,
        agreement=0.875,
        agreement_stderr=0.021,
        copying=COPYING,
        generation=generation,
    )


def test_every_figure_is_a_column_with_the_intact_model_s_first() -> None:
    columns = {column.head[:-2]: [str(cell) for cell in column.cells] for column in figures([measured(0.5)])}
    assert columns == {
        "divergence": ["", "0.2500 ± 0.012"],
        "divergence p99": ["", "1.500"],
        "agreement": ["", "87.5% ± 2.1%"],
        "copying": ["75.0%", "50.0% ± 3.0%"],
        "same tokens": ["", "5.000"],
        "empty": ["25.0%", "0.0%"],
        "loops": ["50.0%", "50.0% ± 10.0%"],
    }
    assert columns.keys() == {name for name in FIGURES if "with images" not in name}


def test_what_no_model_has_is_no_column() -> None:
    heads = [column.head for column in figures([None, measured(None)])]
    assert {head[:-2] for head in heads} == {name for name in FIGURES if "with images" not in name} - {"loops"}
    assert [column.head for column in figures([Fidelity(agreement=0.5)])] == ["agreement ↑"]


def test_only_the_figures_that_are_shown_are_explained() -> None:
    assert figures_note(["divergence", "loops", "empty"]) == (
        "divergence: from the intact model's predictions, in nats; empty, loops: of texts that are generated"
    )
    assert all(figure.meaning for name, figure in FIGURES.items() if name.split()[0] == name)
