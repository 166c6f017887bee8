"""Wordings of statements: to the independent parser each means what the statement means."""

from random import Random

from data_pipelines.datasets.pictograms import description_parser as parser
from data_pipelines.datasets.pictograms.description_wording import say
from data_pipelines.datasets.pictograms.statements import holds, statements_about


def test_every_wording_of_a_statement_means_to_the_parser_what_the_statement_means(sets):
    rng = Random(0)
    for candidates in sets[:10]:
        target, *others = candidates.scenes
        for statement in statements_about(target, others):
            text = say([statement], rng)
            for scene in candidates.scenes:
                assert parser.true_of(text, scene) == holds(statement, scene), (text, scene)
