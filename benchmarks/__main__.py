"""python -m benchmarks: what `make bench` runs."""

from benchmarks import estimators, measure

if __name__ == "__main__":
    measure.main()
    estimators.main()
