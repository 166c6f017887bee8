"""Runs the pipeline with Apache Beam: on this machine, or on Dataflow, Flink or Spark by Beam's options.

Beam needs older Pillow, protobuf and beartype than the rest of the project, and therefore an environment of its own
(docs/guides/synthesis.md). The modules imported here need nothing that is missing there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Draft, from_line, to_line
from data_pipelines.synthesis.filters import settle
from data_pipelines.synthesis.pipeline import Pipeline, through


def run_beam(drafts: Iterable[Draft], pipeline: Pipeline, options: Sequence[str], *, place: Path) -> Iterator[Draft]:
    """Takes drafts through all stages, with the result of `run_local`.

    Args:
      drafts: the pairs.
      pipeline: makes the stages, in each worker.
      options: Beam's own options, as --runner=FlinkRunner.
      place: a folder that all workers see, for intermediate files.

    Raises:
      UserError: Beam is missing, or a worker raised a UserError.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            "--runner=beam needs Apache Beam in an environment of its own: pip install apache-beam "
            "(docs/guides/synthesis.md)."
        ) from error

    class Stages(beam.DoFn):
        """Takes the pairs of one reference through all stages, which are made once a worker."""

        def setup(self):
            self.stages = pipeline.stages()

        def process(self, element):
            pairs = sorted(map(from_line, element[1]), key=lambda draft: draft.target)
            yield from map(to_line, settle([through(self.stages, draft) for draft in pairs]))

    folder = place / "beam"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pairs = folder / "pairs.jsonl"
    with pairs.open("w", encoding="utf-8") as file:
        file.writelines(to_line(draft) + "\n" for draft in drafts)
    try:
        with beam.Pipeline(options=PipelineOptions(list(options))) as steps:
            lines = steps | beam.io.ReadFromText(str(pairs))
            groups = lines | beam.Map(lambda line: (from_line(line).reference, line)) | beam.GroupByKey()
            drafts = groups | beam.ParDo(Stages())
            _ = drafts | beam.io.WriteToText(str(folder / "drafts"), file_name_suffix=".jsonl")
    except Exception as error:
        raise _unwrapped(error) from error
    yield from sorted(_read(folder), key=lambda draft: (draft.reference, draft.target))
    shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> Iterator[Draft]:
    for path in sorted(folder.glob("drafts*.jsonl")):
        with path.open(encoding="utf-8") as file:
            yield from map(from_line, file)


def _unwrapped(error: BaseException) -> BaseException:
    """Returns the UserError of a worker, which runners wrap in errors of their own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return UserError(str(cause).partition(" [while running")[0])
        cause = cause.__cause__ or cause.__context__
    return error
