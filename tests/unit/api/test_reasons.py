"""docs/reasons.md has every reason that operator or trainer can give.

What they can give is read from their code, and rather too much than too little: every word in CamelCase, less those
that are known to be none.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api import exit_codes
from finetune_api.reasons import GROUPS, REASONS

ROOT = Path(__file__).resolve().parents[3]
OPERATOR = ROOT / "operator" / "finetune_operator"
TRAINER = ROOT / "trainer-image" / "finetune_trainer"
WORD = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
# Of types, conditions, phases and settings, ours and those of Kubernetes.
_NO_REASONS = """
    Admitted Always Attempt Complete ConfigMap CreateContainerConfigError CreateContainerError DisruptionTarget
    ErrImageNeverPull ErrImagePull Evaluated FailJob FailedAttachVolume FailedCreate FailedMapVolume FailedMount
    FailureTarget False File FineTuneJob Finished IfNotPresent ImageInspectError ImagePullBackOff In Indexed
    InvalidImageName Job Memory Mi Never None Normal NotIn Pending PodScheduled QuotaReserved Ready Reconciling
    RunContainerError Running RuntimeDefault Secret Service Skipped Stalled SuccessCriteriaMet True Unknown Warn Warning
    ContainerCannotRun SpecApplied StartError
    Auto Copied Drop Empty Fail Keep Learned Loop NoStop RepeatsQuestion WrongLanguage
"""
NO_REASONS = set(_NO_REASONS.split())


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """All of a module's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


def constants(path: Path) -> Iterator[str]:
    """The strings of a module, and the first part of each f-string; no docstrings."""
    prose = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def words(path: Path) -> set[str]:
    return {text for text in constants(path) if WORD.fullmatch(text)}


def begun_by_a_reason(path: Path) -> set[str]:
    """The reasons of sentences such as `Overfitting: the loss rose`."""
    found = (re.match(rf"({WORD.pattern}): ", text) for text in constants(path))
    return {match[1] for match in found if match}


@functools.cache
def behind_decide() -> set[Path]:
    """The modules on which decisions rest: `decide` is pure, so that a reason can come from nowhere else."""
    found: set[Path] = set()
    due = [OPERATOR / "decide" / "decide.py"]
    while due:
        path = due.pop()
        if path in found:
            continue
        found.add(path)
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("finetune_operator"):
                base = ROOT.joinpath("operator", *node.module.split("."))
                named = [base, *(base / alias.name for alias in node.names)]
                due += [p for n in named for p in (n.with_suffix(".py"), n / "__init__.py") if p.exists()]
    return found


def calls(path: Path, *names: str) -> bool:
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in names for n in nodes(path))


def of_the_operator() -> set[str]:
    return set().union(*map(words, behind_decide())) - NO_REASONS


def of_the_trainer() -> set[str]:
    modules = sorted(TRAINER.rglob("*.py"))
    named = [TRAINER / "evaluation" / "warnings.py", *(m for m in modules if calls(m, "CheckReport"))]
    return set().union(*map(begun_by_a_reason, modules), *map(words, named)) - NO_REASONS


def of_exit_codes() -> set[str]:
    return {*exit_codes.REASONS.values(), exit_codes.reason(1)}


HINT = "describe it in crds/finetune_api/reasons.py; if it is no reason, add it to NO_REASONS here"


def test_every_reason_of_the_operator_is_described() -> None:
    assert of_the_operator() - REASONS.keys() == set(), HINT


def test_every_reason_of_the_trainer_is_described() -> None:
    assert of_the_trainer() - REASONS.keys() == set(), HINT


def test_every_exit_code_is_described() -> None:
    assert of_exit_codes() - REASONS.keys() == set(), HINT


@pytest.mark.parametrize("path", sorted(OPERATOR.rglob("*.py")), ids=lambda path: path.stem)
def test_only_what_decides_makes_events_and_failures(path: Path) -> None:
    assert path in behind_decide() or not calls(path, "KubernetesEvent", "Failure", "Condition")


def test_the_trainer_s_results_have_the_reason_of_their_exit_code() -> None:
    for path in TRAINER.rglob("*.py"):
        for node in nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "StageResult":
                for given in (k.value for k in node.keywords if k.arg == "reason"):
                    assert isinstance(given, ast.Call), path
                    assert ast.unparse(given.func) == "reason", path


def test_each_reason_is_in_one_group() -> None:
    assert sum(len(group) for _, group in GROUPS) == len(REASONS)


def test_the_page_has_every_reason_with_its_exit_code() -> None:
    page = (ROOT / "docs" / "reasons.md").read_text()
    codes = {name: f" ({code})" for code, name in exit_codes.REASONS.items()}
    for name in REASONS:
        assert f"| `{name}`{codes.get(name, '')} |" in page
