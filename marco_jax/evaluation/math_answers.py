r"""Compares the final answers of two LaTeX solutions as normalised strings.

The rules are those of the MATH benchmark (Hendrycks et al. 2021) with AGIEval's extraction, as
lm-evaluation-harness has them: 1/2, \frac12 and 0.5 become equal, but no algebra is done.
"""

from __future__ import annotations

import re

_PLAIN_NUMBER = re.compile(r"(?:\$)?\d+(?:\.\d+)?(?![\w\d])")


def same_answer(given: str, right: str) -> bool:
    """Whether the final answers of two texts are equal after normalisation."""
    first, second = final_answer(given), final_answer(right)
    try:
        return normalize_answer(first) == normalize_answer(second)
    except (AttributeError, IndexError, ValueError):
        # Malformed answers are compared without normalisation.
        return first == second


def final_answer(text: str) -> str | None:
    r"""Extracts the final answer of a solution; None if there is none.

    It is the content of the last \boxed; else the last formula between dollar signs; else the
    text after the last equals sign; else the last number.
    """
    if "\\boxed" in text:
        return _boxed(text)
    formulas = re.findall(r"\$(.*)\$", text)
    if formulas and (answer := _after_equals(formulas[-1])):
        return answer
    if "=" in text:
        return text.split("=")[-1].lstrip(" ").rstrip(".").split("\\n")[0]
    numbers = _PLAIN_NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _after_equals(text: str) -> str:
    return text.split("=")[-1].lstrip(" ") if "=" in text else text


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed")
    depth = 0
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if text[end] == "}" and depth == 0:
            box = text[start : end + 1]
            break
    else:
        return None
    return _after_equals(box[len("\\boxed{") : -1]) if box.startswith("\\boxed{") else None


def normalize_answer(text: str) -> str:
    """Brings a LaTeX answer into a normal form.

    Raises:
        AttributeError, IndexError, ValueError: the answer is malformed.
    """
    for old, new in (
        ("\n", ""),
        ("\\!", ""),
        ("\\\\", "\\"),
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("^{\\circ}", ""),
        ("^\\circ", ""),
        ("\\$", ""),
    ):
        text = text.replace(old, new)
    if "\\text{ " in text:
        text, _unit = text.split("\\text{ ")
    text = text.replace("\\%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    if text.startswith("."):
        text = "0" + text
    name, equals, value = text.partition("=")
    if equals and "=" not in value and len(name) <= 2:
        text = value
    text = _braced_fractions(_braced_roots(text).replace(" ", ""))
    return _slash_fraction("\\frac{1}{2}" if text == "0.5" else text)


def _braced_roots(text: str) -> str:
    head, *rest = text.split("\\sqrt")
    return head + "".join(
        "\\sqrt" + (part if part[0] == "{" else f"{{{part[0]}}}{part[1:]}") for part in rest
    )


def _braced_fractions(text: str) -> str:
    head, *rest = text.split("\\frac")
    parts = [head]
    for part in rest:
        if part[0] == "{":
            parts.append(f"\\frac{part}")
        elif len(part) < 2:
            return text
        elif part[1] == "{":
            parts.append(f"\\frac{{{part[0]}}}{part[1:]}")
        else:
            parts.append(f"\\frac{{{part[0]}}}{{{part[1]}}}{part[2:]}")
    return "".join(parts)


def _slash_fraction(text: str) -> str:
    match = re.fullmatch(r"(-?(?:0|[1-9]\d*))/(-?(?:0|[1-9]\d*))", text)
    if not match or "-0" in match.groups():
        return text
    return f"\\frac{{{match[1]}}}{{{match[2]}}}"
