"""The command in provenance.json, as a shell takes it."""

import shlex

import pytest

from pipeline.runs.directory import recorded_command


@pytest.mark.parametrize(
    ("program", "starts"),
    [
        ("/somewhere/site-packages/monai/bundle/__main__.py", ["python", "-m", "monai.bundle"]),
        ("/somewhere/pipeline/__main__.py", ["python", "-m", "pipeline"]),
        ("/usr/bin/pytest", ["pytest"]),
    ],
)
def test_it_can_be_pasted_and_names_no_folder_of_the_machine(monkeypatch, program, starts):
    arguments = ["run", "--config_file", "['a.json','b.json']", "--run_name", "two words"]
    monkeypatch.setattr("sys.argv", [program, *arguments])
    command = recorded_command()
    assert shlex.split(command) == [*starts, *arguments]
    assert "/somewhere" not in command
