"""Many models' scores to tables, tests and a page. Takes results folders; must not train, predict or define a metric."""
