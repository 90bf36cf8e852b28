"""Check the whole path with a sorter that runs in MATLAB, and print a table to send.

SpikeInterface finds the sorter by its environment variable, such as KILOSORT2_5_PATH.

    python benchmarks/matlab.py [--sorter kilosort2_5]
"""

import argparse
import sys

from machine import check

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sorter", default="kilosort2_5")
    sys.exit(check({"name": parser.parse_args().sorter}))
