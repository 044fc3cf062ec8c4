"""Scores of several models to tables, statistical tests and a report. Takes results folders; must not train, predict or define
a metric.
"""
