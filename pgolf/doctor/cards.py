"""Published figures to hold measured ones against: peak rates of cards, step times of records."""

# bfloat16 products with float32 sums, without sparsity, in 1e12 operations per second.
# Source: NVIDIA's data sheets (those of Hopper and later state twice as much, with sparsity).
PEAK_TFLOPS = {
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "H200": 989.4,
    "GH200": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
}
# Milliseconds of a step of 786,432 tokens on 8 x H100, mean of a run.  Source: the logs of these pull requests.
PUBLISHED_STEP_MS = {"pr162": 81.3, "pr339": 90.3, "pr1176": 87.7, "pr1716": 133.9}
AIM = 1.15  # a step may take that many times the published one


def peak_flops(card: str) -> float | None:
    """Operations per second of a card by the name that its driver says; None for one that is not in the table.

    >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("NVIDIA L40S"), peak_flops("NVIDIA T4")
    (989400000000000.0, 362000000000000.0, None)
    """
    words = f" {card.replace('-', ' ')} "
    found = [name for name in PEAK_TFLOPS if f" {name} " in words]
    return PEAK_TFLOPS[max(found, key=len)] * 1e12 if found else None
