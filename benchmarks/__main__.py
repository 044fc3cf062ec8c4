"""`python -m benchmarks`: see `benchmarks.suite.run`."""

from benchmarks.suite.run import main

main()
