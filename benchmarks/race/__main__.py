"""`python -m benchmarks.race`: see `benchmarks.race.run`."""

from benchmarks.race.run import main

main()
