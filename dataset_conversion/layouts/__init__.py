"""Layouts that many datasets have: one script each, with `find(source, options) -> ConversionPlan`."""
