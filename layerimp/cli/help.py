"""The `--help` of a command: the common options first, then others by topic."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

FIRST = 5
"""The number of options before the first heading. These are the options that a command declares first."""
FEW = 10
"""Up to this many options are shown without headings."""
HEADINGS = {
    "What to remove": "scorer no_baselines plan label blocks ratio count target keep by pruner protect removed",
    "Healing": "teacher heal healer minutes heal_text allow_overlap",
    "Calibration text": "calibration field packing label_field samples max_length batch_size seed repeats random_draws",
    "Evaluation": "tasks evaluator limit num_fewshot task_path data_dir allow_task_code",
    "Model": "model dtype device device_map offload trust_remote_code",
    "Work": "engine address workers retry_failed dry_run",
    "Output": "output overwrite no_verify json",
    "General": "recipe set_ clear_ help",
}
"""The options by topic, in the order of `--help`."""


class GroupedCommand(TyperCommand):
    """A command whose `--help` shows its options under headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options; click calls this."""
        shown = [parameter for parameter in self.get_params(ctx) if parameter.get_help_record(ctx)]
        options = [parameter for parameter in shown if parameter.param_type_name == "option"]
        first = options if len(options) <= FEW else options[:FIRST]
        parts = {"Arguments": [parameter for parameter in shown if parameter not in options], "Options": first}
        for heading, names in HEADINGS.items():
            parts[heading] = [option for option in options if option.name in names.split() and option not in first]
        for heading, parameters in parts.items():
            if parameters:
                with formatter.section(heading):
                    formatter.write_dl([parameter.get_help_record(ctx) for parameter in parameters])
