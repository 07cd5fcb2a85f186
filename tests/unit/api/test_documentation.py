"""The README and the pages behind it are right about the files that they name."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()


def test_the_smallest_job_of_the_readme_is_the_one_in_examples() -> None:
    [block] = re.findall(r"```yaml\n(apiVersion.*?)```", README, re.DOTALL)
    assert yaml.safe_load(block) == yaml.safe_load((ROOT / "examples" / "smallest.yaml").read_text())


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
