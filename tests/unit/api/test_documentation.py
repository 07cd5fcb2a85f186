"""The README and the pages behind it are right about the files that they name."""

import re
from pathlib import Path

import yaml

from finetune_api.compute import DEFAULT_REQUESTS, EXPORT_MEMORY_MIB, EXPORT_WEIGHTS_PER_BYTE

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))


def test_the_smallest_job_of_the_readme_is_the_one_in_examples() -> None:
    [block] = re.findall(r"```yaml\n(apiVersion.*?)```", README, re.DOTALL)
    assert yaml.safe_load(block) == yaml.safe_load((ROOT / "examples" / "smallest.yaml").read_text())


def test_the_page_of_the_stages_has_what_the_pods_request_by_default() -> None:
    page = (ROOT / "docs/how-it-works.md").read_text()
    cells = dict(re.findall(r"^\| (prepare|train|export) \| ([^|]+) \|", page, re.MULTILINE))
    for stage in ("prepare", "train"):
        assert f"{DEFAULT_REQUESTS[stage]['cpu']} CPU, {DEFAULT_REQUESTS[stage]['memory']}" in cells[stage]
    assert cells["export"] == (
        f"{DEFAULT_REQUESTS['export']['cpu']} CPU, {EXPORT_MEMORY_MIB // 1024}Gi and a byte for every "
        f"{EXPORT_WEIGHTS_PER_BYTE} weights"
    )


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 200


def test_every_page_is_found_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", README))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == linked


def test_every_link_to_a_heading_leads_to_one() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            text = (page.parent / target).read_text() if target else page.read_text()
            headings = {
                re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
                for heading in re.findall(r"(?m)^#+ (.*)$", text)
            }
            assert anchor in headings, f"{page.name}: {target}#{anchor}"


# What a path in docs/architecture.md is relative to.
BASES = (
    "",
    "crds",
    "crds/finetune_api",
    "operator/finetune_operator",
    "trainer-image/finetune_trainer",
    "charts/finetune-operator",
)


def test_every_path_on_the_architecture_page_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    words = {word for span in re.findall(r"`([^`\n]+)`", page) for word in span.split()}
    paths = {word for word in words if re.fullmatch(r"[\w.-]+(/[\w.-]*)+|\w+\.(py|yaml|toml)", word)}
    assert len(paths) > 20
    missing = {path for path in paths if not any((ROOT / base / path).exists() for base in BASES)}
    assert missing == set()


def test_the_map_of_the_architecture_page_has_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    [tree] = re.findall(r"## Where things are\n\n```\n(.*?)```", page, re.DOTALL)
    named = set(re.findall(r"(\w+)/", tree))
    for package in ("operator/finetune_operator", "trainer-image/finetune_trainer"):
        for folder in (ROOT / package).iterdir():
            assert not (folder / "__init__.py").exists() or folder.name in named, folder.name
