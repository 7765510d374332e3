"""The register of measures: what a measure is, what it needs, and how it is registered."""

from collections.abc import Callable
from dataclasses import dataclass, field

from foretune.measures.class_statistics import SUMS

ROWS, MATRIX = "rows", "matrix"


class UndefinedMeasure(Exception):
    """Raised by a measure that this input has no value of; the text says why."""


@dataclass
class MeasureResult:
    """A measure's value, its other forms by name, and what a reader must know about it."""

    value: float
    variants: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Measure:
    """A registered measure.

    inputs: SUMS (counts and class sums), VARIANCES (class sums of squares, too), SCATTER (the
    scatter of all images, too), ALL (both), ROWS (further passes over the images) or MATRIX (all
    of them at once, so that it sees a random sample of a large task). The function takes
    `Statistics` in the first four cases, else a `Task`. higher_is_better: whether a higher value means more
    gain from tuning; None where no source says.
    """

    name: str
    function: Callable
    inputs: str
    reference: str
    higher_is_better: bool | None
    default: bool


MEASURES: dict[str, Measure] = {}


def measure(
    reference: str, inputs: str = SUMS, higher_is_better: bool | None = None, default: bool = True
):
    """Register a function under its name. It returns a float or a `MeasureResult`, or raises Undefined."""

    def register(function: Callable) -> Callable:
        name = function.__name__
        MEASURES[name] = Measure(name, function, inputs, reference, higher_is_better, default)
        return function

    return register
