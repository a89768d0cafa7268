"""gvlib: many copies of one network, trained together, and what they show.

The shared helper of *Seeing Generalization*. It reads bottom-up: `data`, `models`,
`losses`, `schedules`, `population`, `train`, `landscape`, `curvature`, `sweeps`,
`evidence`, `plot`, `live`, `widgets`; nothing imports a later one. Importing it prints
nothing, seeds nothing and touches no network; landscape and those after it are imported
when they are first used.
"""

from importlib import import_module as _import_module

from . import data, losses, models, schedules
from .population import Population, grid
from .train import Runs, train

__version__ = "0.1.0"
__all__ = [
    "Population",
    "Runs",
    "claim",
    "curvature",
    "data",
    "evidence",
    "grid",
    "landscape",
    "live",
    "losses",
    "models",
    "page",
    "plot",
    "scale",
    "schedules",
    "sweep",
    "train",
    "widgets",
]

_MODULES = ("curvature", "evidence", "landscape", "live", "plot", "widgets")
_FUNCTIONS = {  # name: module that defines it
    "claim": "evidence",
    "page": "evidence",
    "scale": "evidence",
    "sweep": "sweeps",
}


def __getattr__(name: str):
    if name in _MODULES:
        return _import_module(f".{name}", __name__)
    if name in _FUNCTIONS:
        return getattr(_import_module(f".{_FUNCTIONS[name]}", __name__), name)
    raise AttributeError(f"gvlib has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
