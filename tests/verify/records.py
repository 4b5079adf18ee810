"""Logs in the field's grammar, written for these tests from published figures; the lines around them are invented.

Invented as well: 1176's settings and the way its evaluation time splits into passes (the sums are published).
"""

import json
import math

W_LINES = """\
W0418 08:13:00.952000 1129791 torch/distributed/run.py:803]
W0418 08:13:00.952000 1129791 torch/distributed/run.py:803] *****************************************
W0418 08:13:00.952000 1129791 torch/distributed/run.py:803] val_loss:1.0000 val_bpb:0.5000 is not a result
"""

# As logs that begin with their script do: lines of code, comments and strings that look like results.
SOURCE = '''"""
step:1/2 val_loss:0.1000 val_bpb:0.0500
"""
import os

class Hyperparameters:
    seed = int(os.environ.get("SEED", 1337))
# final_int6_roundtrip_exact val_loss:0.10000000 val_bpb:0.05000000
def main():
    log0(f"final_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")
    log0("Total submission size int6+zstd: 1 bytes")
    artifact_bytes = 5
NOTE = """
final_int6_sliding_window_exact val_loss:0.10000000 val_bpb:0.05000000
Total submission size int6+zstd: 2 bytes
seed:3
"""
if __name__ == "__main__":
    main()
'''

FIGURES_1716 = {  # seed: bpb of float, quantized, sliding, ttt; loss of ttt; ms of the last three; model; stop; steps
    42: (
        ("1.08584188", "1.09678081", "1.08014601", "1.07886574"),
        "2.78662485",
        (23829, 120470, 336109),
        (15973106, 588110, 4393),
    ),
    314: (
        ("1.08579894", "1.09679203", "1.08023616", "1.07892882"),
        "2.78678778",
        (24114, 119913, 335468),
        (15976073, 588031, 4393),
    ),
    999: (
        ("1.08561033", "1.09662297", "1.07998003", "1.07865582"),
        "2.78608265",
        (24096, 120053, 333575),
        (15978006, 588029, 4403),
    ),
}


def _loss(bpb: str) -> str:
    """Of 1716's text: the losses before the last one are not among the published figures."""
    return f"{float(bpb) * math.log(2) * 151_075_152 / 40_542_208:.8f}"


def log_1716(seed: int, *, settings: str = "  matrix_lr: 0.022\n") -> str:
    """Pull request 1716: 8 decimals without a twin, spaces behind colons, a block of hyperparameters."""
    (floats, quantized, sliding, ttt), loss, ms, (model, stopped, steps) = FIGURES_1716[seed]
    return f"""\
{W_LINES}Hyperparameters:
  eval_seq_len: 2048
  eval_stride: 64
{settings}  run_id: validate_seed{seed}
  seed: {seed}
  ttt_epochs: 3
  ttt_lr: 0.005
  world_size: 8
train_shards: 128
val_tokens: 40542208
model_params:36486278
gptq:reserving 12s, effective=588000ms
0/20000 val_loss: 9.0074 val_bpb: 3.4873
1/20000 train_loss: 9.0057 train_time: 0.0m tok/s: 7912372
4000/20000 val_loss: 2.8488 val_bpb: 1.1030
{steps}/20000 val_loss: 2.8077 val_bpb: 1.0870
stopping_early: wallclock_cap train_time: {stopped}ms step: {steps}/20000
pre-quantization post-ema val_loss:{_loss(floats)} val_bpb:{floats} eval_time:6074ms
Serialized model: 136555547 bytes
Code size: 18097 bytes
Serialized model quantized+brotli: {model} bytes
Total submission size quantized+brotli: {model + 18097} bytes
quantized val_loss:{_loss(quantized)} val_bpb:{quantized} eval_time:{ms[0]}ms
quantized_sliding_window val_loss:{_loss(sliding)} val_bpb:{sliding} eval_time:{ms[1]}ms
ttt:start chunks=1238 ttt_lr=0.005 ttt_epochs=3
quantized_ttt val_loss:{loss} val_bpb:{ttt} eval_time:{ms[2]}ms
"""


FIGURES_1176 = {  # seed: roundtrip, sliding, legal_ttt, slot (loss, bpb, ms); model bytes
    1337: (
        ("1.92253336", "1.13863255", 21400),
        ("1.88297648", "1.11520768", 100000),
        ("1.87695580", "1.11164189", 516700),
        ("1.84997814", "1.09566416", 248000),
        15867308,
    ),
    42: (
        ("1.92346823", "1.13918623", 20000),
        ("1.88383248", "1.11571466", 99800),
        ("1.87801388", "1.11226855", 514900),
        ("1.85097012", "1.09625166", 248000),
        15866196,
    ),
    2024: (
        ("1.92403754", "1.13952341", 10000),
        ("1.88438598", "1.11604247", 75000),
        ("1.87859094", "1.11261031", 512600),
        ("1.85155857", "1.09660018", 248000),
        15875032,
    ),
}


def _twins(label: str, loss: str, bpb: str, note: str) -> str:
    return (
        f"{label} val_loss:{float(loss):.4f} val_bpb:{float(bpb):.4f} {note}\n"
        f"{label}_exact val_loss:{loss} val_bpb:{bpb}\n"
    )


def log_1176(seed: int) -> str:
    """Pull request 1176: the script first, 4-decimal twins, a score repeated under another label, `=`, SLOT last."""
    roundtrip, sliding, ttt, slot, model = FIGURES_1176[seed]
    return f"""\
{SOURCE}
====================================================================================================
train_loader:dataset:fineweb10B_sp1024 train_shards:80
val_loader:shards pattern=./data/datasets/fineweb10B_sp1024/fineweb_val_*.bin tokens:62021632
model_params:27038812
world_size:8 grad_accum_steps:1
train_batch_tokens:786432 train_seq_len:2048 iterations:9000 max_wallclock_seconds:600.000
seed:{seed}
step:0/9000 val_loss:6.9309 val_bpb:4.1049 train_time:0ms step_avg:0.01ms
step:6845/9000 val_loss:1.9215 val_bpb:1.1380 train_time:600059ms step_avg:87.66ms
stopping_early: wallclock_cap train_time:600059ms step:6845/9000
DIAGNOSTIC post_ema val_loss:1.9198 val_bpb:1.1370 eval_time:1971ms
Serialized model: 106158518 bytes
Code size: 104638 bytes
Serialized model int6+lzma: {model} bytes
Total submission size int6+lzma: {model + 104638} bytes
{_twins("final_int6_roundtrip", roundtrip[0], roundtrip[1], f"eval_time:{roundtrip[2]}ms")}\
{_twins("final_int6_sliding_window", sliding[0], sliding[1], f"stride:64 eval_time:{sliding[2]}ms")}\
final_int8_zlib_roundtrip_exact val_loss:{sliding[0]} val_bpb:{sliding[1]}
ttt_sliding:start chunks=1893 chunk_tokens=32768 ttt_lr=0.002 ttt_epochs=3 freeze_blocks=2
  ttt_chunk [1/1893] bpb=1.159980 time=0.5s
ttt_sliding:done val_loss={float(ttt[0]):.6f} val_bpb={float(ttt[1]):.6f} elapsed={ttt[2] / 1000 - 0.5:.1f}s
{_twins("legal_ttt", ttt[0], ttt[1], f"eval_time:{ttt[2]}ms")}\
slot:starting lr=0.003 steps=5
{_twins("final_slot", slot[0], slot[1], f"eval_time:{slot[2]}ms")}"""


LOG_339 = """\
step:1000/9000 val_loss:2.2898 val_bpb:1.3562 train_time:83180ms step_avg:83.18ms
step:6642/9000 val_loss:1.9405 val_bpb:1.1493 train_time:599956ms step_avg:90.33ms
stopping_early: wallclock_cap train_time:599956ms step:6642/9000
Serialized model: 105784065 bytes
Code size: 70854 bytes
Serialized model int6+zstd: 16099197 bytes
Total submission size int6+zstd: 16170051 bytes
final_int6_roundtrip val_loss:1.9566 val_bpb:1.1588 eval_time:87796ms
final_int6_roundtrip_exact val_loss:1.95664622 val_bpb:1.15883610
final_int6_sliding_window val_loss:1.9188 val_bpb:1.1364 stride:64 eval_time:115552ms
final_int6_sliding_window_exact val_loss:1.91882594 val_bpb:1.13643981
"""

LOG_162 = """\
val_loader:shards pattern=./data/datasets/fineweb10B_sp1024/fineweb_val_*.bin tokens:62021632
world_size:8 grad_accum_steps:1
seed:7
step:7393/20000 val_loss:1.9605 val_bpb:1.1611 train_time:600101ms step_avg:81.17ms
stopping_early: wallclock_cap train_time:600101ms step:7393/20000
Serialized model: 87413467 bytes
Code size: 52243 bytes
Total submission size: 87465710 bytes
Serialized model int6+zstd: 15892664 bytes
Total submission size int8+zlib: 15944907 bytes
final_eval_mode:sliding_window stride:64 batch_seqs:32
  sliding_eval [ 99.1%] 120032/121136 windows running_bpb=1.151319
final_int8_zlib_roundtrip val_loss:1.9331 val_bpb:1.1449 eval_time:155292ms
final_int8_zlib_roundtrip_exact val_loss:1.93314046 val_bpb:1.14491770
"""

STATED_1716 = json.dumps(
    {
        "name": "SP8192 + BigramHash d=32",
        "author": "someone",
        "date": "2026-04-18",
        "track": "10min_16mb",
        "val_bpb": 1.07882,
        "val_bpb_std": 0.000143,
        "seeds": [42, 314, 999],
        "seed_results": {
            str(seed): {
                "val_bpb": float(figures[0][3]),
                "val_loss": float(figures[1]),
                "artifact_bytes": figures[3][0] + 18097,
            }
            for seed, figures in FIGURES_1716.items()
        },
        "vs_merged_sota": {
            "merged_sota_bpb": 1.081,
            "one_sided_z_statistic": -2.9982,
            "one_sided_p_value": 0.001358,
            "cleared_threshold_at_p_lt_0_01": True,
        },
        "hardware": "8xH100 80GB SXM",
    }
)

STATED_1176 = json.dumps(
    {
        "val_bpb": "1.0962",
        "val_bpb_seeds": {"1337": "1.0957", "42": "1.0963", "2024": "1.0966"},
        "val_bpb_std": "0.0005",
        "bytes_total": "15980000",
        "date": None,
    }
)


def write_1716(folder, **options):
    """The folder of pull request 1716: three logs and submission.json."""
    folder.mkdir(exist_ok=True)
    for seed in FIGURES_1716:
        (folder / f"train_seed{seed}.log").write_text(log_1716(seed, **options))
    (folder / "submission.json").write_text(STATED_1716)
    return folder


def write_1176(folder):
    """The folder of pull request 1176."""
    folder.mkdir(exist_ok=True)
    for seed in FIGURES_1176:
        (folder / f"train_seed{seed}.log").write_text(log_1176(seed))
    (folder / "submission.json").write_text(STATED_1176)
    return folder
