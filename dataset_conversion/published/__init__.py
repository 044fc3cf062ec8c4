"""One module for each published dataset: citation, licence, download page, layout.

Each has `find(source, options) -> ConversionPlan`; its row in `dataset_conversion.registry` makes it known to the command.
"""
