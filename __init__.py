"""fedpress: federated learning with compressed communication, end to end."""

from fedpress.errors import FedpressError
from fedpress.task import ClientData, Data, Split, Task

__version__ = "0.1.0"
__all__ = ["ClientData", "Data", "FedpressError", "Split", "Task", "__version__"]
