"""A rate is named for what it is: in bits for each value of an example, or for each code of a map."""

import io

import pytest
from rich.console import Console

from ancestral.report.notation import term
from ancestral.training.journal import Journal


@pytest.mark.parametrize(
    ("name", "line", "title"),
    [
        ("bits_per_dim", "loss 3.25 bits/dim", ("Code length", "bits/dim")),
        ("bits_per_code", "loss 3.25 bits/code", ("Rate of a code", "bits/code")),
        ("decoder_bits_per_dim", "decoder 3.25 bits/dim", ("Decoder", "bits/dim")),
        (
            "given_label_bits_per_dim",
            "given label 3.25 bits/dim",
            ("Code length given the label", "bits/dim"),
        ),
        (
            "given_label_bits_per_code",
            "given label 3.25 bits/code",
            ("Rate of a code given the label", "bits/code"),
        ),
        ("top_given_label_bits_per_code", "top given label 3.25 bits/code", ("Top given label", "bits/code")),
    ],
)
def test_the_terminal_and_the_report_say_the_unit(tmp_path, name, line, title):
    shown = io.StringIO()
    with Journal(tmp_path, Console(file=shown, width=200)) as journal:
        journal.begin_stage("prior", 0, 10)
        journal.write("prior", 5, "validation", {"loss": 3.25, name: 3.25}, steps=10)
    assert shown.getvalue() == f"prior 5/10  validation: {line}\n"
    assert term(name) == title
