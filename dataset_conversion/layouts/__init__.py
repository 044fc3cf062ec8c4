"""Common annotation layouts: one module each, with `find(source, options) -> ConversionPlan`."""
