"""`report.html`: report.json as one page that needs no network, no script and no server."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.report import Report
from finetune_trainer.report import chart as report_chart
from finetune_trainer.report import numbers as report_numbers
from finetune_trainer.report import view as report_view
from finetune_trainer.report.texts import LANGUAGES, Language

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = "report.html.jinja"
# Sizes of the loss curve: for wide screens, and for phones, where the labels of the wide one would be too small.
_WIDE = (760, 300)
_NARROW = (340, 240)
# A longer table is no alternative to the chart.
_MOST_ROWS = 40


def render(report: Report, language: Language = "en") -> str:
    """Return the page in that language. Sections whose part of the report is missing are left out.

    The report's content is escaped, and the page's content security policy allows only its own style.
    """
    training = report.training
    charts = []
    if training is not None:
        for name, (width, height) in (("wide", _WIDE), ("narrow", _NARROW)):
            chart = report_chart.loss_chart(training.loss, training.holdout_loss, training.kept_step, width, height)
            if chart is not None:
                charts.append((name, chart))
    rows = report_chart.table(training.loss, training.holdout_loss, _MOST_ROWS) if training else []
    return _template().render(
        report=report, view=report_view, charts=charts, curve_rows=rows, language=language, t=LANGUAGES[language]
    )


@cache
def _template() -> "Template":
    # A dependency of transformers, which renders chat templates with it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"size": report_numbers.size, "figure": report_numbers.figure}
    return environment.get_template(_TEMPLATE)
