"""The registry of measures: what a measure is, what it computes from, and how to register one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from foretune.measures.class_statistics import SUMS

ROWS, MATRIX = "rows", "matrix"

Function = TypeVar("Function", bound=Callable)


class UndefinedMeasure(Exception):
    """Raised by a measure that is not defined for its input; the message gives the reason."""


@dataclass
class MeasureResult:
    """A measure's value, its variants by name, and notes for the reader."""

    value: float
    variants: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Measure:
    """A registered measure.

    name: the function's name.
    function: takes ClassStatistics if `inputs` is SUMS, VARIANCES, SCATTER or ALL, and otherwise
        a Task.
    inputs: what the measure computes from.
        SUMS: counts and class sums.
        VARIANCES: also the sums of squares per class.
        SCATTER: counts, class sums and the scatter of all images.
        ALL: all of these.
        ROWS: further passes over the images.
        MATRIX: all images at once, so that it gets a random sample of a large task.
    reference: the source of the definition.
    higher_is_better: whether a higher value predicts a larger gain from fine-tuning; None if no
        source says so.
    default: whether a study computes the measure without naming it.
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
) -> Callable[[Function], Function]:
    """Register a function as a measure, under its own name.

    The function returns a float or a MeasureResult, or raises UndefinedMeasure. See Measure for
    the arguments.
    """

    def register(function: Function) -> Function:
        name = function.__name__
        MEASURES[name] = Measure(name, function, inputs, reference, higher_is_better, default)
        return function

    return register
