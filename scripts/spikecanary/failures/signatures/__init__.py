"""The table of signatures: what software prints when a known failure strikes.

One row each, tested row by row with its example. A pattern is anchored on what the
software really prints; a bare word (cuda, memory, docker) is never enough, because a
wrong *stop* costs a recording.

``environment``, ``resource`` and ``biological`` hold the rows; they are tried in this
order, so that a broken host is never called a silent recording.
"""

from spikecanary.failures.signatures.biological import BIOLOGICAL
from spikecanary.failures.signatures.environment import ENVIRONMENT
from spikecanary.failures.signatures.resource import RESOURCE
from spikecanary.failures.signatures.row import Signature

SIGNATURES: tuple[Signature, ...] = (*ENVIRONMENT, *RESOURCE, *BIOLOGICAL)

__all__ = ["SIGNATURES", "Signature"]
