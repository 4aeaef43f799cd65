"""python -m benchmarks: what `make bench` runs."""

from benchmarks import capacity, codec, estimators, measure

if __name__ == "__main__":
    measure.main()
    capacity.main()
    estimators.main()
    codec.main()
