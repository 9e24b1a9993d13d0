# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of the generator of embeddings by rectified flow, and their presets."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.rf import sample

# Other names of a setting in the specification: setting one sets both.
ALIASES = {
    "learning_rate": "lr",
    "train_mix_ratio": "mix_ratio",
    "contrast_loss_weight": "contrast_weight",
}
# When a switch is read, as in `config.option`: the others shape the network.
_TRAINING, _EVALUATION = "training", "evaluation"
_SOLVER = cfg.Rule(
    lambda v: v.lower() in sample.SOLVERS, f"one of {', '.join(sample.SOLVERS)}"
)
_INTERVAL = cfg.Rule(
    lambda v: len(v) == 2 and 0 <= v[0] < v[1] <= 1,
    "two times, the first below the second, in [0, 1]",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a generator, of its training, and of how a host uses its rows.

    A host is the recommender whose embeddings are generated. The defaults are those of
    the preset `plugin`.

    Attributes:
      generators: `shared`: one network for users and items; `split`: one network for
        each side.
      side_embedding: Whether a shared network receives the side of a row as an input.
      hidden_dim: Width of the velocity network.
      n_layers: Number of residual blocks.
      dropout: Dropout rate of the network in training.
      time_code: Encoding of the time, see `velocity.Architecture.time`.
      linear_skip: Whether a linear map of the conditions, one for each side, is added
        to the velocity of the network.
      loss: Loss of the velocity.
      loss_weight: Weight of the loss of the velocity.
      time_law: Distribution of the times at which the velocity is trained.
      standardise: Whether the network sees target and conditions with mean 0 and
        standard deviation 1 in every dimension (running moments, without gradient).
        The embeddings of a graph recommender start 100 times smaller than the noise.
      user_guidance_scale: Scale of the prior that is added to the predicted velocity in
        training.
      guidance_decay_power: Exponent of 1 - t in the decay of the prior.
      cosine_guidance_scale: Scale of the gradient of cos(x_t, x1) that is added to the
        predicted velocity in training.
      cosine_decay_power: Exponent of 1 - t in the decay of that gradient.
      guided_sampling: Whether the prior is also added in generation. A network trained
        with guidance has learned the velocity minus the guidance.
      neighbour_condition: Whether a host with a graph adds a condition: what a node
        receives from the embeddings of its neighbours. Features alone say little about
        the behaviour of a node that was not in training.
      condition_dropout: Share of rows that train a velocity without conditions, for
        classifier-free guidance.
      contrast: Comparison of generated rows with targets. `mse` and `infonce_samples`
        generate rows by the ODE, with gradient through it; `infonce_endpoint` uses the
        endpoint of one predicted velocity, which needs no ODE; `none`.
      contrast_weight: Weight of the comparison.
      contrast_temp: Temperature of InfoNCE.
      negatives: Number of rows that InfoNCE draws as negatives; 0 uses all rows.
      attach_target: Whether losses of the flow have a gradient with respect to the
        target.
      attach_conditions: Whether they have a gradient with respect to the conditions.
      attach_generated: Whether the host's loss has a gradient with respect to the
        generator, through the ODE.
      optimizer: `own`: AdamW with the options below; `host`: the host's optimizer.
      lr: Learning rate.
      weight_decay: Weight decay of AdamW.
      clip_norm: Maximum global norm of a gradient; 0 does not clip.
      ema_decay: Decay of the moving average of the parameters, which generates; 0
        generates with the parameters themselves.
      rows: Number of rows, drawn from all users and items, on which a step trains the
        flow; 0 uses the rows of the host's batch.
      heldout_share: Share of rows that never train the flow: its error is measured on
        them.
      sampling_steps: Number of steps of the ODE solver.
      solver: Name of a diffrax solver.
      rtol: Relative tolerance of an adaptive solver, which chooses its steps; requires
        `atol`. 0 uses `sampling_steps` equal steps.
      atol: Absolute tolerance of an adaptive solver; requires `rtol`.
      noise: Start of generation: `fresh` normal noise, or `zero`, its mean.
      noise_scale: Standard deviation of the noise, in training and generation.
      draws: Number of samples whose mean is generated.
      guidance_weight: Weight of classifier-free guidance; 1 is no guidance.
      guidance_interval: First and last time at which guidance is applied.
      mixing: `convex`: (1 - r) original + r generated; `residual`: original + r
        generated.
      mix_ratio: Ratio r while the host trains. At 0 it trains as if there were no
        generator, whatever is attached.
      inference_mix_ratio: Ratio r when the host ranks.
      inference_choices: Ratios among which a host with validation data chooses after
        training; in training it is evaluated with the first one. If empty,
        `inference_mix_ratio` is used.
      warmup_epochs: Number of epochs during which nothing is mixed.
      reflow: Further training of the flow after validation has chosen the epoch.
        `reflow`: it learns straight lines between the ends of its own paths; `distil`:
        only their first step, for generation in one step.
      reflow_steps: Number of training steps of reflow.
      teacher_steps: Number of ODE steps of the paths that reflow learns.
    """

    generators: Literal["shared", "split"] = cfg.option("shared", when=_TRAINING)
    side_embedding: bool = False
    hidden_dim: int = cfg.option(256, cfg.whole(1))
    n_layers: int = cfg.option(2, cfg.whole(0))
    dropout: float = cfg.option(0.1, cfg.within(0, 1), when=_TRAINING)
    time_code: Literal["raw", "fourier"] = "raw"
    linear_skip: bool = False
    loss: Literal["mse", "huber", "pseudo_huber"] = cfg.option("mse", when=_TRAINING)
    loss_weight: float = cfg.option(1.0, cfg.at_least(0), when=_TRAINING)
    time_law: Literal["uniform", "logit_normal", "u_shaped"] = cfg.option(
        "uniform", when=_TRAINING
    )
    standardise: bool = False
    user_guidance_scale: float = cfg.option(0.2, cfg.at_least(0), when=_TRAINING)
    guidance_decay_power: float = cfg.option(2.0, cfg.at_least(0), when=_TRAINING)
    cosine_guidance_scale: float = cfg.option(0.1, cfg.at_least(0), when=_TRAINING)
    cosine_decay_power: float = cfg.option(2.0, cfg.at_least(0), when=_TRAINING)
    guided_sampling: bool = cfg.option(False, when=_EVALUATION)
    neighbour_condition: bool = False
    condition_dropout: float = cfg.option(0.0, cfg.within(0, 1))
    contrast: Literal["mse", "infonce_samples", "infonce_endpoint", "none"] = (
        cfg.option("infonce_samples", when=_TRAINING)
    )
    contrast_weight: float = cfg.option(1.0, cfg.at_least(0), when=_TRAINING)
    contrast_temp: float = cfg.option(0.2, cfg.above(0), when=_TRAINING)
    negatives: int = cfg.option(0, cfg.whole(0), when=_TRAINING)
    attach_target: bool = cfg.option(False, when=_TRAINING)
    attach_conditions: bool = cfg.option(False, when=_TRAINING)
    attach_generated: bool = cfg.option(False, when=_TRAINING)
    optimizer: Literal["own", "host"] = cfg.option("own", when=_TRAINING)
    lr: float = cfg.option(1e-3, cfg.above(0), when=_TRAINING)
    weight_decay: float = cfg.option(0.01, cfg.at_least(0), when=_TRAINING)
    clip_norm: float = cfg.option(0.0, cfg.at_least(0))
    ema_decay: float = cfg.option(0.0, cfg.within(0, 1))
    rows: int = cfg.option(0, cfg.whole(0), when=_TRAINING)
    heldout_share: float = cfg.option(0.0, cfg.within(0, 1), when=_TRAINING)
    sampling_steps: int = cfg.option(10, cfg.whole(1), when=_EVALUATION)
    solver: str = cfg.option("euler", _SOLVER, when=_EVALUATION)
    rtol: float = cfg.option(0.0, cfg.at_least(0), when=_EVALUATION)
    atol: float = cfg.option(0.0, cfg.at_least(0), when=_EVALUATION)
    noise: Literal["fresh", "zero"] = cfg.option("fresh", when=_EVALUATION)
    noise_scale: float = cfg.option(1.0, cfg.above(0))
    draws: int = cfg.option(1, cfg.whole(1), when=_EVALUATION)
    guidance_weight: float = cfg.option(1.0, cfg.at_least(0), when=_EVALUATION)
    guidance_interval: tuple[float, float] = cfg.option(
        (0.0, 1.0), _INTERVAL, when=_EVALUATION
    )
    mixing: Literal["convex", "residual"] = cfg.option("convex", when=_TRAINING)
    mix_ratio: float = cfg.option(0.5, cfg.between(0, 1), when=_TRAINING)
    inference_mix_ratio: float = cfg.option(0.5, cfg.between(0, 1), when=_EVALUATION)
    inference_choices: tuple[float, ...] = cfg.option(
        (), cfg.each(cfg.between(0, 1)), when=_EVALUATION
    )
    warmup_epochs: int = cfg.option(0, cfg.whole(0), when=_TRAINING)
    reflow: Literal["none", "reflow", "distil"] = cfg.option("none", when=_EVALUATION)
    reflow_steps: int = cfg.option(2000, cfg.whole(1), when=_EVALUATION)
    teacher_steps: int = cfg.option(10, cfg.whole(1), when=_EVALUATION)


# Settings that only a host with users, items and a graph reads.
HOST_SWITCHES = frozenset(
    [
        *("generators", "side_embedding", "neighbour_condition", "attach_target"),
        *("attach_conditions", "attach_generated", "optimizer", "rows"),
        *("heldout_share", "inference_choices", "reflow", "reflow_steps"),
    ]
)

PRESETS: Mapping[str, Settings] = {
    # The first specification: one generator for each side, whose embeddings replace
    # the host's. No gradient of the flow reaches the target.
    "joint": Settings(
        generators="split",
        n_layers=3,
        contrast="mse",
        contrast_weight=0.1,
        user_guidance_scale=0.0,
        cosine_guidance_scale=0.0,
        attach_conditions=True,
        attach_generated=True,
        optimizer="host",
        weight_decay=0.0,
        mix_ratio=1.0,
        inference_mix_ratio=1.0,
    ),
    # The second specification: the defaults of its constructor, with PyTorch's AdamW.
    "plugin": Settings(),
    # Ours: the host trains without the flow. One step from the mean of the noise
    # predicts the mean of the target, and validation chooses the mixing ratio.
    "improved": Settings(
        side_embedding=True,
        hidden_dim=128,
        n_layers=1,
        dropout=0.0,
        time_code="fourier",
        linear_skip=True,
        standardise=True,
        neighbour_condition=True,
        user_guidance_scale=0.0,
        cosine_guidance_scale=0.0,
        contrast="infonce_endpoint",
        contrast_weight=0.1,
        negatives=256,
        clip_norm=1.0,
        ema_decay=0.99,
        rows=2048,
        heldout_share=0.1,
        sampling_steps=1,
        noise="zero",
        # Generation starts at zero, which is far from the noise if its scale is 1.
        noise_scale=0.1,
        mixing="residual",
        mix_ratio=0.0,
        inference_mix_ratio=0.1,
        # The first is the host alone, which therefore selects the same epoch.
        inference_choices=(0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0),
    ),
}
RULES: cfg.Rules = {
    "rf.use_rf": cfg.boolean(),
    "rf.preset": cfg.one_of(*PRESETS),
    **cfg.rules(Settings, "rf."),
    **{f"rf.{alias}": cfg.rules(Settings)[name] for alias, name in ALIASES.items()},
}


def section() -> ConfigDict:
    """Returns the `rf` section of a config; a key that is None has the preset's value.

    It controls the generator of embeddings by rectified flow in the graph recommender,
    and in the tokenizer when `data.features` contains `rf`.
    """
    config = ConfigDict({"use_rf": False, "preset": "improved"})
    for name, value in cfg.section(Settings).items():
        config[name] = cfg.optional(type(value))
    for alias, name in ALIASES.items():
        config[alias] = config.get_ref(name)
    return config


def changed_keys(config: ConfigDict) -> list[str]:
    """Returns the keys of a config's `rf` section that do not have their default."""
    default, values = section(), config.get("rf", {})
    return [f"rf.{key}" for key in default if values.get(key) != default[key]]


def resolve(preset: str, overrides: Mapping[str, Any]) -> Settings:
    """Returns the settings of a preset with some values replaced.

    Args:
      preset: A key of `PRESETS`.
      overrides: Values by name or by one of `ALIASES`; None keeps the preset's value.
        Setting `inference_mix_ratio` clears `inference_choices`.

    Raises:
      UserError: The preset or a setting does not exist, two names of a setting have
        different values, or values are not allowed or cannot be combined.
    """
    if preset not in PRESETS:
        raise UserError(cfg.unknown("rf.preset", preset, PRESETS))
    known = {field.name for field in dataclasses.fields(Settings)}
    chosen: dict[str, Any] = {}
    for key, value in overrides.items():
        if value is None:
            continue
        name = ALIASES.get(key, key)
        if name not in known:
            raise UserError(cfg.unknown("rf setting", key, known | set(ALIASES)))
        if chosen.setdefault(name, value) != value:
            raise UserError(
                f"rf.{key}={value!r} and its other name have different values; set only"
                " one"
            )
    if "inference_mix_ratio" in chosen:
        chosen.setdefault("inference_choices", ())
    settings = dataclasses.replace(PRESETS[preset], **chosen)
    _check(settings)
    return settings


def from_section(section: ConfigDict) -> Settings | None:
    """Returns the settings of a config's `rf` section; None if `use_rf` is False.

    Raises:
      UserError: As `resolve`, also if `use_rf` is False.
    """
    values = dict(section.items())
    enabled = values.pop("use_rf")
    settings = resolve(values.pop("preset"), values)
    return settings if enabled else None


def _check(settings: Settings) -> None:
    """Checks each setting as in a config, then their combinations."""
    section = ConfigDict({"rf": dataclasses.asdict(settings)})
    cfg.check(section, cfg.rules(Settings, "rf."))
    if (settings.rtol > 0) != (settings.atol > 0):
        raise UserError("rf.rtol and rf.atol require each other: set both, or neither")
    if settings.guidance_weight != 1 and settings.condition_dropout == 0:
        raise UserError(
            f"rf.guidance_weight={settings.guidance_weight} requires a velocity without"
            " conditions: set rf.condition_dropout, for example to 0.1"
        )
    if settings.noise == "zero" and settings.draws > 1:
        raise UserError(
            f"rf.draws={settings.draws} samples from rf.noise=zero are equal: use"
            " rf.noise=fresh or one draw"
        )
    if settings.attach_generated and settings.rows:
        raise UserError(
            "rf.rows cannot be combined with rf.attach_generated, which trains on the"
            " rows of the host's batch: set rf.rows=0"
        )
    if settings.attach_generated and settings.heldout_share:
        raise UserError(
            "rf.heldout_share cannot be combined with rf.attach_generated, through"
            " which the host's loss trains the flow on every row: set one of them to 0"
        )
    # The solver checks its own arguments.
    sample.Solver(
        settings.solver, settings.sampling_steps, settings.rtol, settings.atol
    )
    _check_reflow(settings)


def _check_reflow(settings: Settings) -> None:
    if settings.reflow == "none":
        return
    if settings.guided_sampling or settings.guidance_weight != 1:
        raise UserError(
            f"rf.reflow={settings.reflow} learns guided paths, which rf.guided_sampling"
            " and rf.guidance_weight would guide twice: set them to False and 1"
        )
    if settings.reflow == "distil" and settings.sampling_steps != 1:
        raise UserError(
            f"rf.sampling_steps={settings.sampling_steps} cannot be combined with"
            " rf.reflow=distil, which learns the first step only: set it to 1"
        )
