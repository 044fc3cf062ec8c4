"""One script for each published dataset: citation, licence, where to get it, its layout, its files.

Each has `find(source, options) -> ConversionPlan`; its row in `dataset_conversion.registry` makes it known to the command.
"""
