"""Run them: `python -m benchmarks`."""

from benchmarks.measure import main

if __name__ == "__main__":
    main()
