"""Statements: all that are made of a scene hold there, and each has families and topics."""

from data_pipelines.datasets.pictograms import statements
from data_pipelines.datasets.pictograms.scenes import Thing, make_scene
from data_pipelines.datasets.pictograms.statements import Present, Ref, Related, Sized, Statement, holds, topics

TWO_OWLS = make_scene([Thing(0, "owl", "large"), Thing(1, "owl", "small"), Thing(2, "key", "small")])


def test_statements_about_a_scene_hold_and_every_class_comes_up(sets):
    classes = set()
    for candidates in sets[:10]:
        target, *others = candidates.scenes
        about = statements.statements_about(target, others)
        assert all(holds(statement, target) and topics(statement) for statement in about)
        assert all(statement.families <= {"negation", "relation", "size", "count"} for statement in about)
        assert len(set(about)) == len(about)
        classes |= set(map(type, about))
    leaves = {cls for cls in vars(statements).values() if isinstance(cls, type) and issubclass(cls, Statement)}
    assert classes == leaves - {Statement, statements.About}


def test_a_reference_that_fails_makes_its_statement_false():
    assert not holds(Sized(Ref("owl"), "large"), TWO_OWLS) and not holds(Sized(Ref("owl"), "large", True), TWO_OWLS)
    assert holds(Related(Ref("owl", "large"), Ref("key"), "directly above"), TWO_OWLS)
    assert holds(Related(Ref("owl", "small"), Ref("key"), "directly above", negated=True), TWO_OWLS)


def test_what_has_been_said_is_a_repetition():
    said = set(topics(Present("key", "small", "bottom left")) | topics(Present("dog", "small", "top left")))
    assert statements.is_repetition(Related(Ref("key"), Ref("dog"), "below"), said)
    assert not statements.is_repetition(Related(Ref("key"), Ref("fox"), "below"), said)
