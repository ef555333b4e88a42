"""Whether an answer is right for the right reason: every line of its reasoning is checked by arithmetic.

That takes problems whose worked solutions are lines of plain arithmetic, as the generated ones are. Free prose, as in
GSM8K's solutions, is not judged.
"""

import re
from fractions import Fraction
from operator import add, mul, sub, truediv

_NUMBER = r"(-?\d{1,40}(?:\.\d{1,40})?)"
_EQUATION = re.compile(rf"{_NUMBER} ([-+*/]) {_NUMBER} = {_NUMBER}")
_OPERATIONS = {"+": add, "-": sub, "*": mul, "/": truediv}


def is_sound(reasoning: str | None, solution: str | None) -> bool | None:
    """Whether each line of a reasoning is a true equation, and the last one gives the result of the worked solution.

    None where the solution is no list of equations; False without a reasoning.

    >>> solution = "12 + 7 = 19\\n19 - 5 = 14"
    >>> is_sound("12 + 7 = 19\\n19 - 5 = 14", solution), is_sound("12 + 2 = 14", solution)
    (True, True)
    >>> is_sound("12 + 7 = 18\\n18 - 5 = 14", solution), is_sound("12 + 7 = 19", solution), is_sound("So 14.", solution)
    (False, False, False)
    """
    result = _result(solution or "")
    if result is None:
        return None
    return _result(reasoning or "") == result


def _result(text: str) -> Fraction | None:
    """What the last of a text's lines gives; None where a line is no equation, or a false one, or there is none."""
    result = None
    for line in filter(None, map(str.strip, text.splitlines())):
        equation = _EQUATION.fullmatch(line)
        if equation is None:
            return None
        left, right, result = (Fraction(equation[number]) for number in (1, 3, 4))
        if (equation[2] == "/" and right == 0) or _OPERATIONS[equation[2]](left, right) != result:
            return None
    return result
