"""The pairs and pipelines of synthesis, by which the chat models are tried."""

from tests.data_pipelines.synthesis.conftest import make_pipeline, pairs, pictures_folder  # noqa: F401
