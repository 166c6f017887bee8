"""Plans a recipe on a mesh before it is launched: memory, FLOPs, bytes sent, expected time and MFU on chips.

python -m experiments.plan --config=configs/context_cir.py:L14 --mesh=data:8,fsdp:4 [--chip=H100,v5e] [--batch=1024]
python -m experiments.plan --config=configs/context_cir.py:L14 --mesh=data:8,fsdp:8 --target=v5p:4x4x4

The training step is compiled for as many simulated CPU devices and never run: nothing is allocated, and no data is
needed. What is expected of a chip follows from its data sheet by the formula that is printed. The CPU's compiler keeps
some bfloat16 values as float32: on an accelerator there are fewer bytes, not more.

--inference prints the cost of answering instead, beside the base model: parameters, FLOPs of a query and candidate.
With --target the chip's own compiler makes the step too, on this machine: for v4, v5e, v5p, v6e, tpu7x with the extra
[tpu] (v5e:16x16,slices=2: two pods), A100, H100, H200 with [cuda12] (H100:1x8x8: domains x servers x GPUs a server).
"""

import json
from pathlib import Path

from absl import flags

from contextjax.analysis import chips, targets
from contextjax.files import write_whole
from experiments.shared import cli, simulation
from experiments.shared.paths import Place, define_path

CONFIG = cli.define_config()
MESH = flags.DEFINE_string("mesh", None, "Sizes of the axes, as data:8,fsdp:4; default: the config's.")
CHIP = flags.DEFINE_list("chip", list(chips.CHIPS), "The chips that are judged.")
BATCH = flags.DEFINE_integer("batch", None, "The global batch; default: the config's.", lower_bound=1)
ATTAINABLE = flags.DEFINE_float("attainable", chips.ATTAINABLE, "Assumed share of the peak in products.", 0.01, 1)
HIDDEN = flags.DEFINE_float("hidden", 0.0, "Share of sending that passes during other work: assumed.", 0.0, 1.0)
SCAN = flags.DEFINE_bool("scan", False, "Stack the towers' layers: compiles sooner, a little more memory.")
ADVICE = flags.DEFINE_bool("advice", True, "Where it does not fit: compile with remat too, and say what to change.")
TARGET = flags.DEFINE_string("target", None, "Chips whose own compiler makes the step too, as v5p:4x4x4 or H100:1x1x8.")
EFFORT = flags.DEFINE_enum(
    "effort", "default", list(targets.EFFORTS), "Of the TPU's compiler; low: a fifth of the time, memory within 14 %."
)
SIMULATED = flags.DEFINE_bool("simulated", True, "With --target: compile for simulated CPU devices, too.")
INFERENCE = flags.DEFINE_bool("inference", False, "Print what answering costs, and nothing of training.")
OUTPUT = define_path("output", Place.NEW_FILE, "A JSON file of all figures.")


def main() -> None:
    """Compiles the step, prints its costs and what is expected of each chip, and advice where it does not fit."""
    config = cli.required(CONFIG)
    with config.unlocked():
        config.mesh = MESH.value or config.mesh
        config.data.batch_size = BATCH.value or config.data.batch_size
        if SCAN.value:
            config.model.vision.scan = config.model.text.scan = True
    if INFERENCE.value:
        others = MESH, CHIP, BATCH, ATTAINABLE, HIDDEN, SCAN, ADVICE, TARGET, EFFORT, SIMULATED, OUTPUT
        cli.refuse_beside(INFERENCE, *others)
        from experiments.shared.inference_costs import describe_costs

        print(describe_costs(config))
        return
    if TARGET.value:
        target = targets.parse_target(TARGET.value)
        beside = simulation.simulate_beside(target, wanted=SIMULATED.value)
        from experiments.shared import target_plans

        print(target_plans.plan_target(config, target, effort=EFFORT.value, simulated=beside, output=OUTPUT.value))
        return
    simulation.simulate_devices(simulation.count_devices(config.mesh))
    from experiments.shared import plans

    judged = [chips.chip(name) for name in CHIP.value]
    assumed = {"attainable": ATTAINABLE.value, "hidden": HIDDEN.value}
    plan = plans.make_plan(config)
    print(plans.describe(plan, judged, **assumed))
    too_small = [chip for chip in judged if not plan.fits(chip)]
    with_remat = plans.make_plan_with_remat(config) if ADVICE.value and too_small else None
    for chip in too_small if ADVICE.value else ():
        print(f"\nTo fit a {chip.name}:\n  - " + "\n  - ".join(plans.advice(plan, chip, with_remat=with_remat)))
    if OUTPUT.value:
        write_whole(Path(OUTPUT.value), json.dumps(plans.as_json(plan, judged, **assumed), indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
