"""Check the whole path with a sorter in a container, and print a table to send.

The image is pulled where it is missing. Takes ten minutes beside that.

    python benchmarks/container.py [docker | singularity] [--sorter mountainsort5]
"""

import argparse
import sys

from machine import check

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", nargs="?", default="docker", choices=("docker", "singularity"))
    parser.add_argument("--sorter", default="mountainsort5")
    arguments = parser.parse_args()
    sys.exit(check({"name": arguments.sorter, "container": arguments.kind}))
